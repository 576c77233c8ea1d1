"""vLLM on CUDA, asynchronous and with graphs, with a draft over NCCL.

Starting takes most of the time: the tests share a draft model, and two engines, one after another.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from vllm import SamplingParams
from vllm.sampling_params import StructuredOutputsParams

from rayspec.draft.identity import tokenizer_hash
from rayspec.models.cache import lookup
from rayspec.vllm_ext.config import ExtConfig
from tests.support.draft_process import DraftProcess
from tests.support.engines import Engine, EngineHost, Result, start_engine
from tests.support.gpu_ends import DEADLINE_S, draft_environment, target_environment
from tests.support.margins import divergences

pytestmark = [pytest.mark.gpu, pytest.mark.e2e, pytest.mark.timeout(600)]

PROMPTS = Path(__file__).parents[1] / "data" / "prompts.jsonl"
LEADS = ("", "Answer briefly. ", "Think first. ", "Explain to a child: ")
K, TOP = 4, 16
TIMES = 12  # all prompts, with which the engine is busy for seconds
GREEDY = SamplingParams(temperature=0, max_tokens=48)
DRAFT_ENVIRONMENT = draft_environment()


@pytest.fixture(scope="module")
def model() -> Path:
    found = lookup("smollm2")
    if found is None:
        pytest.skip("SmolLM2 is not in the cache: rayspec models fetch smollm2")
    return found


def start(model: Path, **ext: object) -> Engine:
    return start_engine(
        model,
        ext=ExtConfig(
            deadline_s=DEADLINE_S,
            tokenizer_hash=tokenizer_hash(model),
            transport="nccl",
            **ext,  # type: ignore[arg-type]
        ),
        k=K,
        k_tiers=(2,),
        environment=target_environment() | {"VLLM_USE_V2_MODEL_RUNNER": "1"},
        cuda=True,
        dtype="bfloat16",
        max_model_len=512,
        max_num_seqs=32,
        max_num_batched_tokens=256,  # long prompts are prefilled in chunks
        gpu_memory_utilization=0.15,
        num_gpu_blocks_override=160,  # fewer than 32 full sequences need: some are preempted
        enable_prefix_caching=True,
    )


@pytest.fixture(scope="module")
def host() -> Iterator[EngineHost]:
    host = EngineHost()
    yield host
    host.close()


@pytest.fixture
def engine(host: EngineHost, model: Path) -> Iterator[Engine]:
    """The engine whose requests are greedy, attached to whatever the test before left."""
    engine = host.get("greedy", lambda: start(model))
    yield engine
    assert engine.status()["errors"] == {}


@pytest.fixture(scope="module")
def prompts() -> list[str]:
    lines = PROMPTS.read_text(encoding="utf-8").splitlines()
    return [lead + json.loads(line)["prompt"] for lead in LEADS for line in lines]


@pytest.fixture(scope="module")
def plain(host: EngineHost, model: Path, prompts: list[str]) -> list[Result]:
    """Every prompt without a draft: the engine verifies nothing while it is detached."""
    engine = host.get("greedy", lambda: start(model))
    assert engine.config.scheduler_config.async_scheduling
    assert not engine.config.model_config.enforce_eager
    results = engine.run(prompts, GREEDY)
    assert len(results) >= 200
    return results


@pytest.fixture(scope="module")
def draft(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DraftProcess]:
    """The same model as the target; it samples for a target that wants weights."""
    process = DraftProcess(
        tmp_path_factory.mktemp("draft"),
        *("--kind", "model", "--model", str(model), "--device", "cuda:0"),
        *("--slots", "32", "--max-len", "512", "--kv-gib", "2"),
        *("--sampling", "sparse", "--top-m", str(TOP)),
        environment=DRAFT_ENVIRONMENT,
        start_timeout_s=240,
    )
    with process:
        yield process


def attach(engine: Engine, draft: DraftProcess) -> None:
    """Attach unless a test before did; only the shared draft outlives its test."""
    if engine.status()["shards"][0]["state"] != "ready":
        engine.attach(draft)


def random_draft(folder: Path) -> DraftProcess:
    options = ("--kind", "random", "--vocab-size", "49152")
    return DraftProcess(folder, *options, environment=DRAFT_ENVIRONMENT)


def assert_explained(model: Path, plain: Sequence[Result], ours: Sequence[Result]) -> None:
    """Every text is plain's own, but for near ties."""
    found = divergences(
        model,
        [result.prompt for result in plain],
        [result.tokens for result in ours],
        [result.tokens for result in plain],
        device="cuda:0",
    )
    print(f"{len(found)} of {len(plain)} texts differ:")
    for divergence in found:
        print(f"  {divergence}")
    assert all(divergence.explained for divergence in found), found
    assert len(found) < len(plain) / 4


def test_random_drafts(
    engine: Engine, plain: list[Result], prompts: list[str], model: Path, tmp_path: Path
) -> None:
    with engine.drafting(random_draft(tmp_path)):
        results = engine.run(prompts, GREEDY)
        assert engine.status()["link"]["received"] > 100
    assert_explained(model, plain, results)


def test_drafts_of_the_same_model(
    engine: Engine, plain: list[Result], prompts: list[str], model: Path, draft: DraftProcess
) -> None:
    attach(engine, draft)
    before = engine.status()
    results = engine.run(prompts, GREEDY)
    status = engine.status()
    assert_explained(model, plain, results)
    drafted = status["drafted"] - before["drafted"]
    assert drafted > 1000
    # bfloat16 verifies in other shapes than it drafts in; most tokens are no near ties.
    assert (status["accepted"] - before["accepted"]) / drafted > 0.8, status
    print(json.dumps(status, indent=1))


def test_k_grammar_and_requests_that_want_no_drafts(engine: Engine, draft: DraftProcess) -> None:
    attach(engine, draft)
    grammar = StructuredOutputsParams(choice=["red", "green", "blue"])
    # Long enough for the draft to have prefilled: a step of this target takes 3 ms.
    long: dict[str, Any] = {"max_tokens": 160, "ignore_eos": True}
    params = [
        SamplingParams(temperature=0, max_tokens=8, structured_outputs=grammar),
        SamplingParams(temperature=0, **long, extra_args={"rayspec.k": 0}),
        SamplingParams(temperature=0, **long, extra_args={"rayspec.k": 1}),
        SamplingParams(temperature=0.8, seed=5, **long),
    ]
    prompts = [f"Name a colour. {number}" for number in range(len(params))]
    results = engine.run(prompts, params)
    assert results[0].text in ("red", "green", "blue")
    assert all(result.tokens for result in results)
    engine.rpc("rayspec_set_k", 2)
    engine.run(prompts[3:], SamplingParams(temperature=0, max_tokens=6, ignore_eos=True))
    before = engine.status()["drafted_per_pos"]
    engine.run(prompts, params)
    after = engine.status()["drafted_per_pos"]
    engine.rpc("rayspec_set_k", None)
    assert after[1] > before[1]
    assert after[2:] == before[2:]


def test_killed_under_load_and_attached_again(
    engine: Engine, plain: list[Result], prompts: list[str], model: Path, draft: DraftProcess
) -> None:
    attach(engine, draft)
    before = engine.status()
    drafted: list[int] = []

    def kill(step: int, _: Sequence[str]) -> None:
        if step == 20:
            drafted.append(engine.status()["drafted"])
            draft.kill()

    def attach_again(step: int, _: Sequence[str]) -> None:
        if step == 20:
            engine.attach(draft)
            drafted.append(engine.status()["drafted"])

    assert_explained(model, plain, engine.run(prompts, GREEDY, kill))
    assert engine.wait_for("detached")["drafted"] >= drafted[0] > before["drafted"]
    # The engine is a process of its own, which goes on while an attachment is waited for: enough to
    # do for seconds.
    draft.start()
    results = engine.run(prompts * TIMES, GREEDY, attach_again)
    status = engine.status()
    assert_explained(model, plain * TIMES, results)
    assert status["link"]["deaths"] == before["link"]["deaths"] + 1
    assert status["link"]["attaches"] == before["link"]["attaches"] + 1
    assert status["drafted"] > drafted[1]


def test_sampled_drafts_with_their_distribution(
    host: EngineHost, model: Path, draft: DraftProcess
) -> None:
    engine = host.get("sampled", lambda: start(model, q_mode="sparse", q_top=TOP))
    attach(engine, draft)
    params = SamplingParams(temperature=0.9, top_k=50, max_tokens=48, seed=3)
    prompts = [f"Tell a story about number {number}." for number in range(32)]
    results = engine.run(prompts, params)
    status = engine.status()
    assert all(result.tokens for result in results)
    print(json.dumps(status, indent=1))
    # The draft is the target but for its M tokens: most of what it samples is accepted.
    assert status["accepted"] / status["drafted"] > 0.6
    assert status["errors"] == {}
