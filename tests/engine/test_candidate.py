"""A new version of the draft beside the old one: it drafts for the requests that name it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from vllm import SamplingParams

from rayspec.routing.names import CANDIDATE, DRAFT_ARG
from tests.support.draft_process import DraftProcess
from tests.support.engines import Engine

pytestmark = pytest.mark.e2e

PROMPTS = [
    "red green blue red green blue red green " * 6,
    "one two three one two three one two",
    "a b a b a b a b",
    "x y z " * 25,
]
OLD, NEW = 0, 1


def greedy(*, new: bool) -> SamplingParams:
    extra = {DRAFT_ARG: CANDIDATE} if new else None
    return SamplingParams(temperature=0, max_tokens=16, ignore_eos=True, extra_args=extra)


def counts(engine: Engine) -> list[tuple[int, int]]:
    """Return the tokens drafted and accepted, of the old draft and of the new one."""
    return [(shard["drafted"], shard["accepted"]) for shard in engine.status()["shards"]]


@pytest.mark.parametrize("runner", ["v1_candidate", "v2_candidate"])
def test_each_request_has_the_draft_that_it_names(
    request: pytest.FixtureRequest, runner: str, tiny: Path, tmp_path: Path
) -> None:
    engine: Engine = request.getfixturevalue(runner)
    expected = [r.tokens for r in engine.run(PROMPTS, greedy(new=False))]
    # Named without being there, a candidate costs the drafts and nothing else.
    alone = [r.tokens for r in engine.run(PROMPTS, greedy(new=True))]
    assert alone == expected

    bad = DraftProcess(tmp_path / "old", "--kind", "random", "--vocab-size", "49152")
    good = DraftProcess(tmp_path / "new", "--kind", "model", "--model", str(tiny), "--threads", "1")
    with bad, good:
        engine.attach(bad, OLD)
        engine.attach(good, NEW)
        before = counts(engine)
        mixed = engine.run(PROMPTS, [greedy(new=number % 2 == 1) for number in range(4)])
        after = counts(engine)
        (old, _), (new, taken) = (
            (b[0] - a[0], b[1] - a[1]) for a, b in zip(before, after, strict=True)
        )
        assert old > 8
        assert after[OLD][1] == 0
        # The new one is the target's own model.
        assert new > 8
        assert taken / new > 0.9
        assert [bad.stats()["mismatches"], good.stats()["mismatches"]] == [0, 0]

        def kill(step: int, _: Sequence[str]) -> None:
            if step == 4:
                good.kill()

        killed = engine.run(PROMPTS, [greedy(new=number % 2 == 0) for number in range(4)], kill)
        engine.wait_for("detached", shard=NEW)
        assert engine.status()["shards"][OLD]["state"] == "ready"
        without = engine.run(PROMPTS, greedy(new=False))
        assert counts(engine)[OLD][0] > after[OLD][0]
    engine.wait_for("detached", shard=OLD)
    for results in (mixed, killed, without):
        assert [r.tokens for r in results] == expected
