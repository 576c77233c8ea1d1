"""vLLM on CUDA, asynchronous and with graphs, with a draft over NCCL on the same GPU."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from vllm import SamplingParams
from vllm.sampling_params import StructuredOutputsParams

from rayspec.draft.identity import tokenizer_hash
from rayspec.models.cache import lookup
from rayspec.vllm_ext.config import ExtConfig
from tests.support.draft_process import DraftProcess
from tests.support.engines import Engine, Result, start_engine
from tests.support.margins import divergences
from tests.support.one_gpu import DEADLINE_S, as_host

pytestmark = [pytest.mark.gpu, pytest.mark.e2e, pytest.mark.timeout(600)]

PROMPTS = Path(__file__).parents[1] / "data" / "prompts.jsonl"
LEADS = ("", "Answer briefly. ", "Think first. ", "Explain to a child: ")
K, TOP = 4, 16
GREEDY = SamplingParams(temperature=0, max_tokens=48)
DRAFT_ENVIRONMENT = as_host("test-draft")


@dataclass(frozen=True)
class Setup:
    model: Path
    engine: Engine
    prompts: list[str]


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
        environment=as_host("test-target") | {"VLLM_USE_V2_MODEL_RUNNER": "1"},
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
def setup(model: Path) -> Iterator[Setup]:
    lines = PROMPTS.read_text(encoding="utf-8").splitlines()
    prompts = [lead + json.loads(line)["prompt"] for lead in LEADS for line in lines]
    engine = start(model)
    yield Setup(model, engine, prompts)
    errors = engine.status()["errors"]
    engine.close()
    assert errors == {}


@pytest.fixture(scope="module")
def plain(setup: Setup) -> list[Result]:
    """Every prompt without a draft: the engine verifies nothing while it is detached."""
    assert setup.engine.config.scheduler_config.async_scheduling
    assert not setup.engine.config.model_config.enforce_eager
    results = setup.engine.run(setup.prompts, GREEDY)
    assert len(results) >= 200
    return results


def same_model(model: Path, folder: Path, *options: str) -> DraftProcess:
    return DraftProcess(
        folder,
        *("--kind", "model", "--model", str(model), "--device", "cuda:0"),
        *("--slots", "32", "--max-len", "512", "--kv-gib", "2", *options),
        environment=DRAFT_ENVIRONMENT,
        start_timeout_s=240,
    )


def random_draft(folder: Path) -> DraftProcess:
    options = ("--kind", "random", "--vocab-size", "49152")
    return DraftProcess(folder, *options, environment=DRAFT_ENVIRONMENT)


def assert_explained(setup: Setup, plain: Sequence[Result], ours: Sequence[Result]) -> None:
    """Every text is plain's own, but for near ties."""
    prompts = [result.prompt for result in plain]
    found = divergences(
        setup.model,
        prompts,
        [result.tokens for result in ours],
        [result.tokens for result in plain],
        device="cuda:0",
    )
    print(f"{len(found)} of {len(plain)} texts differ:")
    for divergence in found:
        print(f"  {divergence}")
    assert all(divergence.explained for divergence in found), found
    assert len(found) < len(plain) / 4


def test_drafts_of_the_same_model(setup: Setup, plain: list[Result], tmp_path: Path) -> None:
    before = setup.engine.status()
    with setup.engine.drafting(same_model(setup.model, tmp_path)):
        results = setup.engine.run(setup.prompts, GREEDY)
        status = setup.engine.status()
    assert_explained(setup, plain, results)
    drafted = status["drafted"] - before["drafted"]
    assert drafted > 1000
    # bfloat16 verifies in other shapes than it drafts in; most tokens are no near ties.
    assert (status["accepted"] - before["accepted"]) / drafted > 0.8, status
    print(json.dumps(status, indent=1))


def test_random_drafts(setup: Setup, plain: list[Result], tmp_path: Path) -> None:
    with setup.engine.drafting(random_draft(tmp_path)):
        results = setup.engine.run(setup.prompts, GREEDY)
        assert setup.engine.status()["link"]["received"] > 100
    assert_explained(setup, plain, results)


def test_killed_under_load_and_attached_again(
    setup: Setup, plain: list[Result], tmp_path: Path
) -> None:
    engine = setup.engine
    draft = same_model(setup.model, tmp_path)
    before = engine.status()["link"]
    drafted: list[int] = []
    with draft:
        engine.attach(draft)

        def act(step: int, _: Sequence[str]) -> None:
            if step == 40:
                drafted.append(engine.status()["drafted"])
                draft.kill()
            elif step == 80:
                engine.wait_for("detached")
                draft.start()
                engine.attach(draft)
                drafted.append(engine.status()["drafted"])

        results = engine.run(setup.prompts, GREEDY, act)
        status = engine.status()
    engine.wait_for("detached")
    assert_explained(setup, plain, results)
    assert status["link"]["deaths"] == before["deaths"] + 1
    assert status["link"]["attaches"] == before["attaches"] + 2
    # Drafts were accepted before the kill and after the second attachment.
    assert len(drafted) == 2
    assert status["drafted"] > drafted[1] > 0


def test_k_grammar_and_requests_that_want_no_drafts(setup: Setup, tmp_path: Path) -> None:
    engine = setup.engine
    grammar = StructuredOutputsParams(choice=["red", "green", "blue"])
    params = [
        SamplingParams(temperature=0, max_tokens=8, structured_outputs=grammar),
        SamplingParams(temperature=0, max_tokens=24, extra_args={"rayspec.k": 0}),
        SamplingParams(temperature=0, max_tokens=24, extra_args={"rayspec.k": 1}),
        SamplingParams(temperature=0.8, seed=5, max_tokens=24),
    ]
    prompts = [f"Name a colour. {number}" for number in range(len(params))]
    with engine.drafting(random_draft(tmp_path)):
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


def test_sampled_drafts_with_their_distribution(model: Path, tmp_path: Path) -> None:
    engine = start(model, q_mode="sparse", q_top=TOP)
    draft = same_model(model, tmp_path, "--sampling", "sparse", "--top-m", str(TOP))
    params = SamplingParams(temperature=0.9, top_k=50, max_tokens=48, seed=3)
    prompts = [f"Tell a story about number {number}." for number in range(32)]
    with engine.drafting(draft):
        results = engine.run(prompts, params)
        status = engine.status()
    assert all(result.tokens for result in results)
    print(json.dumps(status, indent=1))
    # The draft is the target but for its M tokens: most of what it samples is accepted.
    assert status["accepted"] / status["drafted"] > 0.6
    assert status["errors"] == {}
    engine.close()
