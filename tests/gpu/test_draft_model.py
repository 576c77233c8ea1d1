"""The draft model on CUDA in bfloat16: logits, captured decoding, fp8 weights, a trimmed head.

Errors are compared with those that transformers' own bfloat16 forward makes, both against a
float32 forward over the same rounded weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rayspec.draft.vllm_model.spec import VllmModelSpec
from tests.support.families import FAMILIES, VOCAB, build_family
from tests.support.model_rig import Step, cuda_refusals, drive, process, reference

pytestmark = [pytest.mark.gpu, pytest.mark.e2e]

LENGTHS = (37, 70, 5, 33)
BACKENDS = ("FLASH_ATTN", "TRITON_ATTN")


@pytest.fixture(scope="module")
def call() -> Iterator[Callable[..., Any]]:
    with process() as call:
        yield call


def check(steps: list[Step], path: Path, what: str) -> None:
    """Assert that no step is much further from exact logits than transformers' bfloat16 is."""
    exact = reference(path, steps, dtype="rounded", device="cuda")
    rough = reference(path, steps, dtype="bfloat16", device="cuda")
    table, wrong = [], []
    for step, truth, other in zip(steps, exact, rough, strict=True):
        assert step.logits.shape == truth.shape
        scale = float(truth.abs().max())
        for row in range(len(truth)):
            ours = float((step.logits[row] - truth[row]).abs().max())
            theirs = float((other[row] - truth[row]).abs().max())
            allowed = 3 * theirs + 0.02 * scale
            table.append(
                f"{step.name}, row {row} of {len(step.texts[row])} tokens: error {ours:.4f}, "
                f"transformers {theirs:.4f}, allowed {allowed:.4f}, largest logit {scale:.2f}"
            )
            if not ours <= allowed:  # NaN included
                wrong.append(table[-1])
    assert not wrong, f"{what}: {len(wrong)} of {len(table)} rows are wrong\n" + "\n".join(table)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_captured_decoding(
    family: str, backend: str, call: Callable[..., Any], tmp_path: Path
) -> None:
    build_family(family, tmp_path)
    spec = VllmModelSpec(path=str(tmp_path), device="cuda", attention=backend)
    eager = call(drive, spec, LENGTHS, graph=False, vocab=VOCAB)
    check(eager, tmp_path, f"{family}, {backend}, eager")
    # Captured over other lengths and tables than these: a replay has to follow what changed.
    replayed = call(drive, spec, LENGTHS, graph=True, vocab=VOCAB)
    check(replayed, tmp_path, f"{family}, {backend}, replayed")
    for one, other in zip(eager, replayed, strict=True):
        scale = float(one.logits.abs().max())
        torch.testing.assert_close(one.logits, other.logits, rtol=0, atol=0.02 * scale)


@pytest.mark.parametrize("family", ["llama_tied", "qwen3", "gemma3"])
def test_a_mid_size_model_over_a_long_context(
    family: str, call: Callable[..., Any], tmp_path: Path
) -> None:
    build_family(family, tmp_path, hidden=1024, layers=8)
    spec = VllmModelSpec(path=str(tmp_path), device="cuda")
    steps = call(drive, spec, (480, 200, 17, 311, 64, 90, 128), graph=True, vocab=VOCAB)
    check(steps, tmp_path, family)


@pytest.mark.parametrize("graph", [False, True])
def test_fp8_weights_stay_close(graph: bool, call: Callable[..., Any], tmp_path: Path) -> None:
    build_family("llama", tmp_path, hidden=512)
    spec = VllmModelSpec(path=str(tmp_path), device="cuda", quantization="fp8")
    steps = call(drive, spec, LENGTHS, graph=graph, vocab=VOCAB)
    for step, exact in zip(steps, reference(tmp_path, steps, dtype="rounded"), strict=True):
        alike = torch.nn.functional.cosine_similarity(step.logits, exact)
        assert (alike > 0.98).all(), f"{step.name}: {alike.tolist()}"


def test_a_trimmed_head_gives_the_columns_of_its_tokens(
    call: Callable[..., Any], tmp_path: Path
) -> None:
    build_family("llama_tied", tmp_path)
    ids = torch.randperm(VOCAB, generator=torch.Generator().manual_seed(3))[:75].tolist()
    trim = tmp_path / "ids.json"
    trim.write_text(json.dumps(ids))
    whole, part = (
        call(
            drive,
            VllmModelSpec(path=str(tmp_path), device="cuda", vocab_trim=file),
            (21, 40),
            graph=True,
            vocab=VOCAB,
        )
        for file in (None, str(trim))
    )
    for one, other in zip(whole, part, strict=True):
        scale = float(one.logits.abs().max())
        torch.testing.assert_close(other.logits, one.logits[:, ids], rtol=0, atol=0.01 * scale)


def test_says_what_a_gpu_cannot_have(call: Callable[..., Any], tmp_path: Path) -> None:
    build_family("llama", tmp_path)
    memory, attention = call(cuda_refusals, str(tmp_path))
    assert "MiB are free" in memory
    assert "FLASHINFER" in attention.upper()
