"""What a verification found, the sentence it comes to, and its JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from rayspec.audit.compare import Difference
from rayspec.audit.sampled import Comparison
from rayspec.audit.settings import FailOn, Settings
from rayspec.audit.speed import ClassSpeed

__all__ = ["FORMAT", "Report", "RequestReport"]

FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class RequestReport:
    """One greedy request: whether both lanes said the same, and how long each took."""

    prompt: int
    workload_class: str
    asked: str
    equal: bool
    tokens: int
    drafted: int
    accepted: int
    plain: Mapping[str, float | None]
    speculative: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that a verification found.

    `unstable` counts the prompts to which the plain lane by itself gave different answers;
    `token_texts` says what the tokens that tests name look like.
    """

    rayspec: str
    url: str
    model: str
    begun: str
    seconds: float
    settings: Settings
    requests: tuple[RequestReport, ...]
    unstable: int
    differences: tuple[Difference, ...]
    classes: tuple[ClassSpeed, ...]
    sampled: tuple[Comparison, ...]
    token_texts: Mapping[int, str]

    @property
    def unexplained(self) -> int:
        """Differences that no near tie explains."""
        return sum(not difference.verdict.explained for difference in self.differences)

    @property
    def distributions_differ(self) -> bool:
        """Whether sampled answers of the two lanes are not from one distribution."""
        return any(test.differs for each in self.sampled for test in each.tests)

    @property
    def idle(self) -> tuple[Comparison, ...]:
        """Sampled prompts for which nothing was drafted: their tests say nothing."""
        return tuple(each for each in self.sampled if not each.exercised)

    @property
    def weak(self) -> tuple[Comparison, ...]:
        """Sampled prompts of which too few answers were drafted for a fault to be likely seen."""
        return tuple(each for each in self.sampled if each.exercised and each.weak)

    def passed(self, fail_on: FailOn = FailOn.UNEXPLAINED) -> bool:
        """Whether the two lanes give the same answers, as far as `fail_on` wants them to."""
        wrong = self.unexplained if fail_on is FailOn.UNEXPLAINED else len(self.differences)
        return not wrong and not self.distributions_differ

    def headline(self, fail_on: FailOn) -> str:
        """Return the verdict in a few words."""
        if not self.passed(fail_on):
            return "Failed: the lanes do not give the same answers"
        if self.differences:
            return "Passed: answers are equal but for near ties"
        return "Passed: speculation does not change the answers"

    @property
    def sensitivity(self) -> float | None:
        """Share of answers that may follow the draft before it is likely seen in every prompt."""
        found = [
            min((test.detectable for test in each.tests if test.detectable), default=None)
            for each in self.sampled
            if each.exercised
        ]
        known = [share for share in found if share is not None]
        return max(known) if known and len(known) == len(found) else None

    @property
    def greedy_sentence(self) -> str:
        """What the greedy answers came to."""
        asked, different = len(self.requests), len(self.differences)
        said = f"{asked - different} of {asked} greedy answers are equal token for token"
        if different:
            explained = different - self.unexplained
            said += f"; {explained} part at a near tie, {self.unexplained} without explanation"
        return said + "."

    @property
    def sampled_sentence(self) -> str:
        """What the sampled answers came to."""
        tests = [test for each in self.sampled for test in each.tests if each.exercised]
        if not self.sampled:
            return "Sampled answers were not compared."
        if not tests:
            return "Nothing was drafted for the sampled requests, so their tests say nothing."
        alpha = f"α = {self.settings.alpha:g} over all tests"
        if self.distributions_differ:
            count = sum(test.differs for test in tests)
            return (
                f"Distributions of sampled answers differ: {count} of {len(tests)} tests ({alpha})."
            )
        said = f"No difference between the distributions of sampled answers ({alpha})"
        if self.sensitivity is not None:
            said += f"; following the draft in {self.sensitivity:.0%} of them would likely be seen"
        return said + "."

    @property
    def speed_sentence(self) -> str:
        """What speculation was worth."""
        everything = self.classes[-1]
        faster = everything.faster["e2e_ms"]
        said = f"{everything.tokens_per_step:.2f} tokens a step"
        if everything.acceptance is not None:
            said = f"{everything.acceptance:.0%} of draft tokens accepted, {said}"
        if faster is None:
            return said + "."
        interval = (
            "" if faster.low is None else f" (95 % interval {faster.low:.2f}–{faster.high:.2f})"
        )
        return f"{said}; whole answers {faster.value:.2f} times as fast{interval}."

    def to_json(self, fail_on: FailOn) -> str:
        """Return everything as JSON, derived numbers included."""
        facts: dict[str, Any] = {"format": FORMAT, "passed": self.passed(fail_on)}
        facts |= {"fail_on": fail_on, "unexplained": self.unexplained}
        facts |= {"distributions_differ": self.distributions_differ}
        facts |= {"sensitivity": self.sensitivity} | asdict(self)
        for told, each in zip(facts["classes"], self.classes, strict=True):
            told |= {"acceptance": each.acceptance, "tokens_per_step": each.tokens_per_step}
        for told, comparison in zip(facts["sampled"], self.sampled, strict=True):
            told |= {"exercised": comparison.exercised, "weak": comparison.weak}
        return json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
