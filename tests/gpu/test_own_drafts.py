"""vLLM on CUDA that drafts itself, asynchronous and with graphs of several widths."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from vllm import SamplingParams

from rayspec.models.cache import lookup
from rayspec.routing.types import K_ARG
from tests.support.engines import Engine, EngineHost, start_own_draft_engine
from tests.support.margins import divergences
from tests.support.tiny import build_eagle3

pytestmark = [pytest.mark.gpu, pytest.mark.e2e, pytest.mark.timeout(600)]

PROMPTS = Path(__file__).parents[1] / "data" / "prompts.jsonl"
K = 4


@pytest.fixture(scope="module")
def model() -> Path:
    found = lookup("smollm2")
    if found is None:
        pytest.skip("SmolLM2 is not in the cache: rayspec models fetch smollm2")
    return found


@pytest.fixture(scope="module")
def host() -> Iterator[EngineHost]:
    host = EngineHost()
    yield host
    host.close()


def start(model: Path, method: str, folder: Path) -> Engine:
    settings: dict[str, dict[str, Any]] = {
        "ngram": {"prompt_lookup_min": 2, "prompt_lookup_max": 4},
        "draft_model": {"model": str(model)},
        "eagle3": {} if method != "eagle3" else {"model": str(build_eagle3(folder, model))},
    }
    return start_own_draft_engine(
        model,
        k=K,
        k_tiers=(2,),
        method=method,
        settings=settings[method],
        environment={},
        cuda=True,
        dtype="bfloat16",
        max_model_len=512,
        max_num_seqs=16,
        gpu_memory_utilization=0.15,
    )


def greedy(k: int | None) -> SamplingParams:
    extra = None if k is None else {K_ARG: k}
    return SamplingParams(temperature=0, max_tokens=48, ignore_eos=True, extra_args=extra)


@pytest.mark.parametrize("method", ["ngram", "draft_model", "eagle3"])
def test_the_same_texts_and_steps_as_wide_as_their_requests_ask(
    host: EngineHost, model: Path, tmp_path: Path, method: str
) -> None:
    engine = host.get(method, lambda: start(model, method, tmp_path))
    assert engine.config.scheduler_config.async_scheduling
    lines = PROMPTS.read_text(encoding="utf-8").splitlines()
    prompts = [json.loads(line)["prompt"] for line in lines]

    plain = engine.run(prompts, greedy(0))
    assert engine.stats.latest.drafted == 0
    narrow = engine.run(prompts, greedy(2))
    assert all(result.drafted <= 2 * result.steps for result in narrow)
    drafted = engine.run(prompts, greedy(None))

    found = divergences(
        model,
        [result.prompt for result in plain],
        [result.tokens for result in drafted],
        [result.tokens for result in plain],
        device="cuda:0",
    )
    assert all(divergence.explained for divergence in found), found
    stats = engine.stats.latest
    print(f"{method}: {stats.accepted} of {stats.drafted} accepted, by position", end=" ")
    print(stats.accepted_per_pos, stats.drafted_per_pos, f"{len(found)} texts differ")
    assert stats.drafted > len(prompts) * 8
    if method == "draft_model":  # it drafts for itself
        assert stats.accepted > 0.8 * stats.drafted
