"""An engine that drafts itself, by every method: the same tokens, and no more drafts than asked."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from vllm import SamplingParams

from rayspec.routing.types import K_ARG
from tests.engine.conftest import BLOCK, THREADS
from tests.support.engines import Engine, EngineHost, start_own_draft_engine
from tests.support.tiny import build_eagle3, build_mimo

pytestmark = pytest.mark.e2e

K = 3
PROMPTS = [
    "one two three one two three one two three one two",
    "Say it again and again: red green blue red green blue red",
    "x",
]
ARCTIC = pytest.mark.skipif(find_spec("arctic_inference") is None, reason="no arctic-inference")

Start = Callable[[str], Engine]


@pytest.fixture
def start(host: EngineHost, tiny: Path, smollm2: Path, tmp_path: Path) -> Start:
    """Return what starts a tiny model's engine with one of the methods."""

    def settings(method: str) -> tuple[Path, dict[str, Any]]:
        match method:
            case "ngram":
                return tiny, {"prompt_lookup_min": 1, "prompt_lookup_max": 3}
            case "draft_model":
                return tiny, {"model": str(tiny)}
            case "eagle3":
                return tiny, {"model": str(build_eagle3(tmp_path, tiny))}
            case "mtp":
                return build_mimo(tmp_path, smollm2), {}
        return tiny, {}

    def engine(method: str) -> Engine:
        model, chosen = settings(method)
        return start_own_draft_engine(
            model,
            k=K,
            method=method,
            settings=chosen,
            environment=THREADS,
            load_format="dummy" if method == "mtp" else "auto",
            max_model_len=8 * BLOCK,
            block_size=BLOCK,
            num_gpu_blocks_override=40,
            max_num_seqs=4,
            max_num_batched_tokens=2 * BLOCK,
        )

    return lambda method: host.get(f"own-{method}", lambda: engine(method))


def greedy(k: int | None) -> SamplingParams:
    extra = None if k is None else {K_ARG: k}
    return SamplingParams(temperature=0, max_tokens=24, ignore_eos=True, extra_args=extra)


@pytest.mark.parametrize(
    "method", ["ngram", pytest.param("suffix", marks=ARCTIC), "draft_model", "eagle3", "mtp"]
)
def test_the_same_tokens_and_as_many_drafts_as_were_asked_for(start: Start, method: str) -> None:
    engine = start(method)

    plain = engine.run(PROMPTS, greedy(0))
    assert engine.stats.latest.drafted == 0
    assert [result.drafted for result in plain] == [0] * len(PROMPTS)

    drafted = engine.run(PROMPTS, greedy(None))
    assert [r.tokens for r in drafted] == [p.tokens for p in plain]
    assert any(result.drafted > result.steps for result in drafted)
    stats = engine.stats.latest
    assert sum(stats.drafted_per_pos) == stats.drafted == sum(r.drafted for r in drafted)
    assert sum(stats.accepted_per_pos) == stats.accepted
    assert len(stats.drafted_per_pos) == K
    if method in ("ngram", "suffix", "draft_model"):
        assert stats.accepted > 0
    if method == "draft_model":  # it drafts for itself
        assert stats.accepted > 0.9 * stats.drafted

    fewer = engine.run(PROMPTS, [greedy(1), greedy(0), greedy(None)])
    assert [r.tokens for r in fewer] == [p.tokens for p in plain]
    assert fewer[0].drafted == fewer[0].steps
    assert fewer[1].drafted == 0
