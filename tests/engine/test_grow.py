"""vLLM grows a model while loading it, and it says what the small one says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from vllm import SamplingParams

from load_tests.grow import engine_args
from load_tests.growth import SHAPES, GrownModel
from load_tests.prompts import sample
from rayspec.draft.identity import tokenizer_hash
from rayspec.vllm_ext.config import ExtConfig
from tests.engine.conftest import BLOCK, THREADS
from tests.support.engines import Engine, EngineHost, start_engine

pytestmark = pytest.mark.e2e

GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
TWO_RANKS = {"VLLM_CPU_OMP_THREADS_BIND": "0|1"}


def start(model: Path, ranks: int = 1, **arguments: Any) -> Engine:
    return start_engine(
        model,
        ext=ExtConfig(tokenizer_hash=tokenizer_hash(model)),
        k=1,
        environment=THREADS if ranks == 1 else TWO_RANKS,
        tensor_parallel_size=ranks,
        max_model_len=16 * BLOCK,
        block_size=BLOCK,
        num_gpu_blocks_override=72,
        max_num_seqs=4,
        max_num_batched_tokens=8 * BLOCK,
        **arguments,
    )


def answers(engine: Engine, tokens: Sequence[str]) -> list[tuple[int, ...]]:
    return [result.tokens for result in engine.run(tokens, GREEDY)]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [prompt.text for prompt in sample(8, seed=3)]


@pytest.fixture(scope="module")
def expected(host: EngineHost, smollm2: Path, texts: list[str]) -> list[tuple[int, ...]]:
    """What the small model says: asked once, for it makes way for every other engine."""
    return answers(host.get("small", lambda: start(smollm2)), texts)


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_same_tokens(
    host: EngineHost,
    smollm2: Path,
    tmp_path: Path,
    texts: list[str],
    expected: list[tuple[int, ...]],
    ranks: int,
) -> None:
    grown = GrownModel.of(smollm2, SHAPES["0.5b"])
    arguments = engine_args(grown.write_config(tmp_path))
    folder = Path(arguments.pop("model"))
    engine = host.get(f"grown-{ranks}", lambda: start(folder, ranks, **arguments))
    assert answers(engine, texts) == expected
