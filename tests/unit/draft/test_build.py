from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rayspec.draft.base import DeviceDrafter, DraftRequest
from rayspec.draft.build import build_drafter
from rayspec.draft.counters import DraftCounters
from rayspec.draft.mirror import DraftSequence
from rayspec.draft.ngram import NgramDrafter
from rayspec.draft.random import RandomDrafter
from rayspec.errors import ConfigError


def test_prompt_lookup_serves_any_tokenizer() -> None:
    drafter, vocab_size, tokenizer = build_drafter("ngram")
    assert isinstance(drafter, NgramDrafter)
    assert (vocab_size, tokenizer) == (None, None)


def test_random_drafts_stay_in_the_vocabulary_and_repeat_by_seed() -> None:
    requests = [DraftRequest(DraftSequence(0, 1, 50, 0.0, None, [1]), 50)]
    drafters = [build_drafter("random", vocab_size=7)[0] for _ in range(2)]
    drafts = [drafter.draft(requests) for drafter in drafters if isinstance(drafter, RandomDrafter)]
    assert drafts[0] == drafts[1]
    assert set(drafts[0][0]) == set(range(7))


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        ("random", "kind random needs it"),
        ("model", "kind model needs a model folder"),
        ("oracle", "choose one of model, ngram, random"),
    ],
)
def test_what_is_missing_is_named(kind: str, remedy: str) -> None:
    with pytest.raises(ConfigError, match=remedy):
        build_drafter(kind)


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"engine": "steam"}, "choose one of auto, vllm, transformers"),
        ({"engine": "vllm"}, "needs a CUDA device, not cpu"),
        ({"quantization": "fp8"}, "quantization.*needs the engine vllm"),
        ({"sampling": "sparse"}, "sampling.*needs the engine vllm"),
        ({"device": "cuda:0", "sampling": "dense"}, "choose greedy or sparse"),
        ({"device": "cuda:0", "sampling": "sparse", "top_m": 24}, "must be a power of two"),
    ],
)
def test_settings_that_do_not_go_together_are_named(
    tmp_path: Path, settings: dict[str, Any], remedy: str
) -> None:
    model = tiny_model(tmp_path)
    with pytest.raises(ConfigError, match=remedy):
        build_drafter("model", model=str(model), **settings)


def test_a_model_on_cuda_drafts_in_rounds_and_loads_when_its_loop_starts(tmp_path: Path) -> None:
    drafter, vocab_size, _ = build_drafter(
        "model", model=str(tiny_model(tmp_path)), device="cuda:0", sampling="sparse", top_m=16
    )
    assert isinstance(drafter, DeviceDrafter)
    assert vocab_size == 64
    loop = drafter.loop(DraftCounters(), k_max=5, max_slots=32)
    assert loop.q_top == 16
    assert loop.rounds().blocks_total == 0


def tiny_model(folder: Path) -> Path:
    """A model folder with all but weights."""
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": 64,
        "max_position_embeddings": 128,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"type": "BPE", "vocab": {}}}))
    return folder
