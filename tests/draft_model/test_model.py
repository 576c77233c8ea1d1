"""What a draft model tells its owner, and the trimmed head."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rayspec.draft.vllm_model.spec import VllmModelSpec
from tests.support.families import VOCAB, build_family
from tests.support.model_rig import drive, lifecycle, process, reference

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def call() -> Iterator[Callable[..., Any]]:
    with process() as call:
        yield call


@pytest.mark.parametrize("family", ["llama", "llama_tied", "gemma2"])
def test_a_trimmed_head_gives_the_columns_of_its_tokens(
    family: str, call: Callable[..., Any], tmp_path: Path
) -> None:
    build_family(family, tmp_path)
    ids = torch.randperm(VOCAB, generator=torch.Generator().manual_seed(3))[:75].tolist()
    trim = tmp_path / "ids.json"
    trim.write_text(json.dumps(ids))
    spec = VllmModelSpec(path=str(tmp_path), vocab_trim=str(trim))
    steps = call(drive, spec, (21, 40), graph=False, vocab=VOCAB)
    for step, expected in zip(steps, reference(tmp_path, steps), strict=True):
        torch.testing.assert_close(step.logits, expected[:, ids], rtol=1e-4, atol=1e-4)


def test_two_models_share_a_process_and_say_what_they_are(
    call: Callable[..., Any], tmp_path: Path
) -> None:
    build_family("llama", tmp_path)
    seen = call(lifecycle, str(tmp_path))
    assert seen["max_len"] == 64
    assert seen["vocab_size"] == VOCAB
    assert seen["token_ids"] is None
    assert seen["blocks"] == 10
    # Keys and values, 4 layers, 2 heads of 32 float32 numbers.
    assert seen["kv_bytes_per_token"] == 2 * 4 * 2 * 32 * 4
    assert seen["finite"]
    short, many = seen["errors"]
    assert short == "kv memory = '100 bytes': a block takes 65536 bytes"
    assert many == "rows = 257: the model was loaded for 256"
