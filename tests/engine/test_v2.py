"""Model Runner V2, which drives GPUs, with its kernels interpreted on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from vllm import SamplingParams
from vllm.sampling_params import StructuredOutputsParams

from rayspec.routing.types import K_ARG
from tests.support.draft_process import DraftProcess
from tests.support.engines import Engine

pytestmark = pytest.mark.e2e

PROMPTS = [
    "red green blue red green blue red green " * 6,
    "one two three one two three one two",
    "a b a b a b a b",
    "x y z " * 25,
]
GREEDY = SamplingParams(temperature=0, max_tokens=16, ignore_eos=True)


@pytest.fixture
def perfect(tiny: Path, tmp_path: Path) -> DraftProcess:
    """A draft that is the target's own model."""
    options = ("--kind", "model", "--model", str(tiny), "--threads", "1")
    return DraftProcess(tmp_path, *options)


@pytest.fixture(scope="module")
def reference() -> list[tuple[int, ...]]:
    """Filled by the first test: both engines compute the same model."""
    return []


def expect(engine: Engine, reference: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    if not reference:
        reference.extend(r.tokens for r in engine.run(PROMPTS, GREEDY))
    return reference


def test_drafts_change_no_token(
    v2: Engine, reference: list[tuple[int, ...]], perfect: DraftProcess
) -> None:
    expected = expect(v2, reference)
    preemptions = v2.stats.latest.preemptions
    with v2.drafting(perfect):
        results = v2.run(PROMPTS, GREEDY)
        assert perfect.stats()["mismatches"] == 0
    assert [r.tokens for r in results] == expected
    assert v2.stats.latest.preemptions > preemptions
    status = v2.status()
    assert status["drafted"] > 20
    assert status["accepted"] / status["drafted"] > 0.9


def test_killed_in_the_middle(
    v2: Engine, reference: list[tuple[int, ...]], perfect: DraftProcess
) -> None:
    expected = expect(v2, reference)
    with perfect:
        v2.attach(perfect)

        def act(step: int, _: Sequence[str]) -> None:
            if step == 4:
                perfect.kill()

        results = v2.run(PROMPTS, GREEDY, act)
    assert [r.tokens for r in results] == expected


def test_k_of_a_step_and_grammar(v2: Engine, tmp_path: Path) -> None:
    grammar = StructuredOutputsParams(choice=["red", "green", "blue"])
    params = [
        SamplingParams(temperature=0, max_tokens=8, structured_outputs=grammar),
        SamplingParams(temperature=0, max_tokens=8, ignore_eos=True),
    ]
    expected = v2.run(PROMPTS[:2], params)
    random = DraftProcess(tmp_path, "--kind", "random", "--vocab-size", "49152")
    with v2.drafting(random):
        results = v2.run(PROMPTS[:2], params)
        assert v2.status()["drafted_per_pos"][2] > 0
        v2.rpc("rayspec_set_k", 2)  # not a declared width: the next narrower one is taken
        v2.run(PROMPTS[2:3], SamplingParams(temperature=0, max_tokens=3, ignore_eos=True))
        before = v2.status()["drafted_per_pos"]
        narrow = v2.run(PROMPTS[:2], params)
        after = v2.status()["drafted_per_pos"]
        v2.rpc("rayspec_set_k", None)
    for outcome in (results, narrow):
        assert [r.tokens for r in outcome] == [e.tokens for e in expected]
        assert outcome[0].text in ("red", "green", "blue")
    assert after[0] > before[0]
    assert after[1:] == before[1:]


def test_two_ranks_with_asynchronous_scheduling(
    v2_tp2: Engine, reference: list[tuple[int, ...]], perfect: DraftProcess
) -> None:
    expected = expect(v2_tp2, reference)
    with v2_tp2.drafting(perfect):
        results = v2_tp2.run(PROMPTS, GREEDY)
        assert perfect.stats()["mismatches"] == 0
    assert [r.tokens for r in results] == expected
    first, second = v2_tp2.rpc("rayspec_status")
    assert first["accepted"] / first["drafted"] > 0.9
    assert second["state"] == "disabled"  # the link is on the first rank alone


def test_two_drafts_share_the_slots(
    v2_shards: Engine, reference: list[tuple[int, ...]], tiny: Path, tmp_path: Path
) -> None:
    expected = expect(v2_shards, reference)
    options = ("--kind", "model", "--model", str(tiny), "--threads", "1")
    drafts = [DraftProcess(tmp_path / str(number), *options) for number in range(2)]
    with drafts[0], drafts[1]:
        for shard, draft in enumerate(drafts):
            v2_shards.attach(draft, shard)
        results = v2_shards.run(PROMPTS, GREEDY)
        assert [draft.stats()["mismatches"] for draft in drafts] == [0, 0]
        shards = v2_shards.status()["shards"]
        assert all(shard["drafted"] > 0 for shard in shards)

        def act(step: int, _: Sequence[str]) -> None:
            if step == 4:
                drafts[0].kill()

        alone = v2_shards.run(PROMPTS, GREEDY, act)
        assert v2_shards.wait_for("detached")["attached"]
        assert v2_shards.status()["shards"][1]["drafted"] > shards[1]["drafted"]
    assert [r.tokens for r in results] == expected
    assert [r.tokens for r in alone] == expected


def test_the_k_of_a_step_is_what_its_requests_ask_for(
    v2_shards: Engine, reference: list[tuple[int, ...]], tiny: Path, tmp_path: Path
) -> None:
    expected = expect(v2_shards, reference)

    def asking(*ks: int | None) -> list[SamplingParams]:
        extra = ({} if k is None else {K_ARG: k} for k in ks)
        return [
            SamplingParams(temperature=0, max_tokens=16, ignore_eos=True, extra_args=args)
            for args in extra
        ]

    options = ("--kind", "model", "--model", str(tiny), "--threads", "1")
    drafts = [DraftProcess(tmp_path / str(number), *options) for number in range(2)]
    with drafts[0], drafts[1]:
        for shard, draft in enumerate(drafts):
            v2_shards.attach(draft, shard)
        narrow = v2_shards.run(PROMPTS, asking(1, 1, 0, 1))
        none = v2_shards.run(PROMPTS, asking(0, 0, 0, 0))
        before = v2_shards.status()["drafted_per_pos"]
        mixed = v2_shards.run(PROMPTS, asking(1, 0, None, 2))
        after = v2_shards.status()["drafted_per_pos"]
        assert [draft.stats()["mismatches"] for draft in drafts] == [0, 0]
    for results in (narrow, none, mixed):
        assert [r.tokens for r in results] == expected
    # Every place that was verified counts as drafted here, fillers too.
    assert all(r.drafted <= r.steps for r in narrow)
    assert sum(r.drafted for r in narrow) > 20
    assert [r.drafted for r in none] == [0] * len(PROMPTS)
    assert after[2] > before[2]
