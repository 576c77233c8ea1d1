"""A draft that dies, hangs or comes late costs speed and nothing else; K can be changed."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
from vllm import SamplingParams

from rayspec.routing.types import K_ARG
from tests.support.draft_process import DraftProcess
from tests.support.engines import Engine

pytestmark = pytest.mark.e2e

PROMPTS = [
    f"Repeat the list {n} times: red green blue yellow red green blue yellow red" for n in range(4)
]
GREEDY = SamplingParams(temperature=0, max_tokens=56, ignore_eos=True)
NGRAM = ("--kind", "ngram")
RANDOM = ("--kind", "random", "--vocab-size", "49152")


@pytest.fixture
def expected(v1: Engine) -> list[tuple[int, ...]]:
    return [r.tokens for r in v1.run(PROMPTS, GREEDY)]


def test_killed_in_the_middle_and_replaced(
    v1: Engine, expected: list[tuple[int, ...]], tmp_path: Path
) -> None:
    with (
        DraftProcess(tmp_path / "first", *NGRAM) as first,
        DraftProcess(tmp_path / "second", *NGRAM) as second,
    ):
        v1.attach(first)
        before = v1.status()
        killed_at: list[int] = []
        drafted: list[int] = []

        def act(step: int, _: Sequence[str]) -> None:
            if not killed_at:
                if v1.status()["drafted"] > before["drafted"]:
                    first.kill()
                    killed_at.append(step)
            elif step == killed_at[0] + 3:
                status = v1.wait_for("detached")
                assert status["link"]["deaths"] == before["link"]["deaths"] + 1
                drafted.append(status["drafted"])
                v1.rpc("rayspec_attach", asdict(second.admit(v1.hello())))

        results = v1.run(PROMPTS, GREEDY, act)
        # The second one took over in the middle of the same generation.
        assert v1.status()["drafted"] > drafted[0]
        assert second.stats()["mismatches"] == 0
    v1.wait_for("detached")
    assert [r.tokens for r in results] == expected


def test_slow_for_a_while(v1: Engine, expected: list[tuple[int, ...]], tmp_path: Path) -> None:
    with v1.drafting(DraftProcess(tmp_path, *NGRAM)) as draft:

        def act(step: int, _: Sequence[str]) -> None:
            if step == 4:
                draft.stop()
                threading.Timer(1.7, draft.resume).start()

        before = v1.status()["link"]
        results = v1.run(PROMPTS, GREEDY, act)
        assert [r.tokens for r in results] == expected
        slow = v1.status()["link"]
        # After the first, probes at ever larger distances: few of the steps of 1.7 s wait.
        assert 1 <= slow["misses"] - before["misses"] <= 4
        # It is used again once it has caught up.
        assert v1.run(PROMPTS, GREEDY)[0].drafted > 0
        assert v1.status()["link"]["received"] > slow["received"]
        assert v1.status()["link"]["deaths"] == before["deaths"]
        assert draft.stats()["mismatches"] == 0


def test_hung_for_ever(v1: Engine, expected: list[tuple[int, ...]], tmp_path: Path) -> None:
    with DraftProcess(tmp_path, *NGRAM) as draft:
        v1.attach(draft)

        def act(step: int, _: Sequence[str]) -> None:
            if step == 4:
                draft.stop()

        results = v1.run(PROMPTS, GREEDY, act)
        assert [r.tokens for r in results] == expected
        v1.wait_for("detached")


def test_aborted_requests_are_forgotten(
    v1: Engine, expected: list[tuple[int, ...]], tmp_path: Path
) -> None:
    with v1.drafting(DraftProcess(tmp_path, *NGRAM)) as draft:

        def act(step: int, ids: Sequence[str]) -> None:
            if step == 8:
                v1.abort(ids[:2])

        results = v1.run(PROMPTS, GREEDY, act)
        assert [r.tokens for r in results] == expected[2:]
        v1.wait_until(lambda: v1.status()["live"] == 0)
        v1.wait_until(lambda: draft.stats()["sequences"] == 0)


def test_k_of_a_request(v1: Engine, tmp_path: Path) -> None:
    ks = (0, 1, 3, None)
    params = [
        SamplingParams(
            temperature=0,
            max_tokens=16,
            ignore_eos=True,
            extra_args=None if k is None else {K_ARG: k},
        )
        for k in ks
    ]
    with v1.drafting(DraftProcess(tmp_path, *RANDOM)):
        results = v1.run(PROMPTS, params)
    assert results[0].drafted == 0
    for k, result in zip(ks[1:], results[1:], strict=True):
        assert result.steps >= 12
        assert result.drafted == result.steps * (4 if k is None else k)


def test_k_of_a_step(v1: Engine, tmp_path: Path) -> None:
    def drafted(k: int | None) -> list[int]:
        v1.rpc("rayspec_set_k", k)
        # The scheduler hears of K with the outcome of the next step.
        v1.run(PROMPTS[:1], SamplingParams(temperature=0, max_tokens=3, ignore_eos=True))
        before = v1.status()["drafted_per_pos"]
        v1.run(PROMPTS, SamplingParams(temperature=0, max_tokens=8, ignore_eos=True))
        after = v1.status()["drafted_per_pos"]
        return [a - b for a, b in zip(after, before, strict=True)]

    with v1.drafting(DraftProcess(tmp_path, *RANDOM)):
        try:
            none, one = drafted(0), drafted(1)
        finally:
            every = drafted(None)
    assert none == [0, 0, 0, 0]
    assert one[0] >= 20
    assert one[1:] == [0, 0, 0]
    assert min(every) >= 20
