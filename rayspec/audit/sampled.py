"""Says whether sampled answers of both lanes come from one distribution, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from rayspec.audit.permutation import (
    ENDED,
    Features,
    Result,
    Rows,
    holm,
    pairs,
    positions,
    two_sample,
)
from rayspec.audit.power import detectable, typical
from rayspec.audit.turns import Samples

__all__ = ["Comparison", "Test", "compare", "token_ids"]

_KINDS: dict[str, Callable[[Rows, int], Features]] = {"positions": positions, "pairs": pairs}


@dataclass(frozen=True, slots=True)
class Test:
    """One test of one prompt; `adjusted` is its p-value after Holm's correction over all tests.

    `detectable` is the smallest tried share of answers that may follow the draft without a trace
    in one of five runs; None if even all of them would.
    """

    __test__ = False  # the name is not for pytest

    kind: str
    result: Result
    adjusted: float
    differs: bool
    detectable: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """All tests of one prompt; `drafted_answers` are those for which anything was drafted."""

    prompt: int
    workload_class: str
    asked: str
    samples: tuple[int, int]
    drafted: int
    accepted: int
    drafted_answers: int
    different_answers: int
    tests: tuple[Test, ...]

    @property
    def exercised(self) -> bool:
        """Whether any of the answers was drafted."""
        return self.drafted > 0

    @property
    def weak(self) -> bool:
        """Whether too few answers were drafted for a fault in all of them to be likely seen."""
        found = min((t.detectable for t in self.tests if t.detectable), default=1.0)
        return self.drafted_answers < found * self.samples[0]


def compare(samples: Sequence[Samples], length: int, alpha: float) -> list[Comparison]:
    """Test all prompts; with equal lanes any test differs with a chance of at most `alpha`."""
    # What Holm's correction asks of the smallest p-value.
    strict = alpha / max(1, len(samples) * len(_KINDS))
    results: list[Result] = []
    smallest: list[float | None] = []
    for each in samples:
        first = len(each.speculative)
        rows = _rows(each)
        planted = [*rows, typical(rows, length)]
        for build in _KINDS.values():
            result = two_sample(build(rows, length), first, alpha=strict)
            results.append(result)
            smallest.append(detectable(build(planted, length), first, result.critical))
    adjusted = holm([result.p for result in results])
    tests = [
        Test(kind, result, p, p <= alpha, share)
        for kind, result, p, share in zip(
            [*_KINDS] * len(samples), results, adjusted, smallest, strict=True
        )
    ]
    return [
        _comparison(each, tests[at * len(_KINDS) : (at + 1) * len(_KINDS)])
        for at, each in enumerate(samples)
    ]


def token_ids(category: Sequence[Hashable]) -> list[int]:
    """Return the tokens that a category of a test is about, without ends and pooled ones."""
    return [token for token in category[1:] if isinstance(token, int) and token != ENDED]


def _rows(samples: Samples) -> list[tuple[int, ...]]:
    return [answer.tokens for answer in (*samples.speculative, *samples.plain)]


def _comparison(samples: Samples, tests: Sequence[Test]) -> Comparison:
    return Comparison(
        prompt=samples.prompt.number,
        workload_class=samples.plain[0].workload_class,
        asked=samples.prompt.preview,
        samples=(len(samples.speculative), len(samples.plain)),
        drafted=sum(answer.drafted for answer in samples.speculative),
        accepted=sum(answer.accepted for answer in samples.speculative),
        drafted_answers=sum(answer.drafted > 0 for answer in samples.speculative),
        different_answers=len(set(_rows(samples))),
        tests=tuple(tests),
    )
