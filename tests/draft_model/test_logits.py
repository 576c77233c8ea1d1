"""The draft model's logits against transformers', with vLLM's CPU kernels in float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rayspec.draft.vllm_model.spec import VllmModelSpec
from tests.support.families import FAMILIES, VOCAB, build_family
from tests.support.model_rig import drive, process, reference

pytestmark = pytest.mark.e2e

LENGTHS = (37, 70, 5, 33)


@pytest.fixture(scope="module")
def call() -> Iterator[Callable[..., Any]]:
    with process() as call:
        yield call


@pytest.mark.parametrize("family", FAMILIES)
def test_prefill_and_decoding_give_the_logits_of_transformers(
    family: str, call: Callable[..., Any], tmp_path: Path
) -> None:
    build_family(family, tmp_path)
    steps = call(drive, VllmModelSpec(path=str(tmp_path)), LENGTHS, graph=False, vocab=VOCAB)
    for step, expected in zip(steps, reference(tmp_path, steps), strict=True):
        assert step.logits.shape == (len(LENGTHS), VOCAB)
        torch.testing.assert_close(
            step.logits, expected, rtol=1e-4, atol=1e-4, msg=lambda text, at=step.name: at + text
        )
