from __future__ import annotations

import random

import pytest

from rayspec.routing.names import CANDIDATE
from rayspec.routing.trial import State, Trial, TrialSpec
from rayspec.routing.types import Lane, Outcome

SPEC = TrialSpec(share=0.25, min_requests=20, tolerance=0.02)
K = 4


def outcome(draft: str | None, accepted: int, steps: int, idle: int = 0) -> Outcome:
    return Outcome(
        "chat", Lane.SPECULATIVE, steps, K * steps, accepted, 0, True, idle_steps=idle, draft=draft
    )


def play(
    trial: Trial, chances: dict[str, tuple[float, float]], requests: int, *, seed: int = 0
) -> None:
    """Serve requests of every class whose drafts are accepted with (old, new) chance per token."""
    rng = random.Random(seed)
    for _ in range(requests):
        for name, (old, new) in chances.items():
            draft = trial.draft()
            chance = new if draft == CANDIDATE else old
            steps = rng.randint(8, 40)
            accepted = 0
            for _ in range(steps):
                for _ in range(K):
                    if rng.random() >= chance:
                        break
                    accepted += 1
            trial.observe(name, outcome(draft, accepted, steps))


@pytest.mark.parametrize(
    ("chances", "state"),
    [
        ({"chat": (0.4, 0.7)}, State.PROMOTED),
        ({"chat": (0.7, 0.4)}, State.ROLLED_BACK),
        # Better in the mean, but not for everybody.
        ({"chat": (0.3, 0.8), "code": (0.8, 0.5)}, State.ROLLED_BACK),
        ({"chat": (0.3, 0.6), "code": (0.8, 0.85)}, State.PROMOTED),
    ],
)
def test_the_better_version_is_found(chances: dict[str, tuple[float, float]], state: State) -> None:
    trial = Trial(SPEC)
    play(trial, chances, 400)
    assert trial.state is state


def test_a_share_of_the_requests_tries_and_then_all_or_none() -> None:
    trial = Trial(SPEC)
    assert [trial.draft() for _ in range(8)].count(CANDIDATE) == 2
    trial.state = State.PROMOTED
    assert [trial.draft() for _ in range(4)] == [CANDIDATE] * 4
    assert trial.serving == CANDIDATE
    trial.state = State.ROLLED_BACK
    assert [trial.draft() for _ in range(4)] == [None] * 4
    assert trial.serving is None


def test_few_requests_decide_nothing_however_clear() -> None:
    trial = Trial(SPEC)
    for _ in range(SPEC.min_requests - 1):
        trial.observe("chat", outcome(CANDIDATE, 40, 10))
    for _ in range(100):
        trial.observe("chat", outcome(None, 0, 10))
    assert trial.serving is None
    trial.observe("chat", outcome(CANDIDATE, 40, 10))
    assert trial.state is State.PROMOTED


def test_an_equal_version_serves_once_that_is_certain() -> None:
    trial = Trial(TrialSpec(share=0.5, min_requests=20, tolerance=0.1))
    play(trial, {"chat": (0.5, 0.5)}, 1000)
    assert trial.state is State.PROMOTED
    found = trial.comparison()
    assert found is not None
    assert -0.1 * found.base < found.low < found.high


def test_equal_versions_are_rarely_told_apart() -> None:
    states = []
    for seed in range(40):
        trial = Trial(SPEC)
        play(trial, {"chat": (0.5, 0.5)}, 200, seed=seed)
        states.append(trial.state)
    assert State.ROLLED_BACK not in states


def test_a_draft_that_has_nothing_is_worse_though_all_it_says_is_accepted() -> None:
    trial = Trial(SPEC)
    rng = random.Random(1)
    for _ in range(60):
        trial.observe("chat", outcome(None, 10 + rng.randint(0, 2), 10))
        trial.observe("chat", outcome(CANDIDATE, 4, 1, idle=9 + rng.randint(0, 2)))
    assert trial.state is State.ROLLED_BACK


@pytest.mark.parametrize("draft", [None, CANDIDATE])
def test_a_request_without_a_draft_tells_nothing(draft: str | None) -> None:
    trial = Trial(SPEC)
    trial.observe("chat", outcome(draft, 0, 0))
    assert trial.requests() == (0, 0)
    assert trial.comparison() is None


def test_doubt_is_as_wide_as_means_of_new_samples_spread() -> None:
    def mean(seed: int) -> tuple[float, float]:
        rng = random.Random(seed)
        trial = Trial(TrialSpec(min_requests=10**9))
        for _ in range(60):
            # Requests have levels of their own, as texts do.
            level, steps = rng.random(), rng.randint(5, 50)
            accepted = sum(rng.random() < level for _ in range(steps))
            trial.observe("chat", outcome(None, accepted, steps))
        sums = trial.classes["chat"].old
        return sums.mean, sums.variance

    means, variances = zip(*(mean(seed) for seed in range(300)), strict=True)
    centre = sum(means) / len(means)
    spread = sum((each - centre) ** 2 for each in means) / (len(means) - 1)
    assert sum(variances) / len(variances) == pytest.approx(spread, rel=0.25)
