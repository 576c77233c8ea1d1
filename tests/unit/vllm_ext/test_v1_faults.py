from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from rayspec.vllm_ext.v1_faults import V1Faults, expand


class State(NamedTuple):
    logits: str
    spec_decode_metadata: Any


def runner(drafts: list[int] | None, generators: dict[int, str]) -> SimpleNamespace:
    metadata = None if drafts is None else SimpleNamespace(num_draft_tokens=drafts)
    return SimpleNamespace(
        execute_model_state=State("logits", metadata),
        input_batch=SimpleNamespace(generators=generators, num_reqs=3),
        # The buffer is longer than the batch; the rest of it is stale.
        discard_request_mask=SimpleNamespace(np=np.array([True, True, False, True])),
    )


@pytest.mark.parametrize(
    ("drafts", "kept"), [([0, 0, 0], False), ([0, 2, 0], True), ([], False), (None, False)]
)
def test_a_step_without_drafts_is_sampled_without_metadata(
    drafts: list[int] | None, kept: bool
) -> None:
    subject = runner(drafts, {})
    V1Faults().before_sample(subject)
    assert (subject.execute_model_state.spec_decode_metadata is not None) == kept
    assert subject.execute_model_state.logits == "logits"


def test_generators_of_discarded_rows_are_hidden_for_a_step() -> None:
    generators = {0: "a", 2: "c"}
    subject, faults = runner([0, 0, 1], generators), V1Faults()
    faults.before_sample(subject)
    assert generators == {2: "c"}
    faults.after_sample(subject)
    assert generators == {0: "a", 2: "c"}
    faults.after_sample(subject)
    assert generators == {0: "a", 2: "c"}


def test_a_step_that_ran_nothing() -> None:
    subject = runner(None, {0: "a"})
    subject.execute_model_state = None
    V1Faults().before_sample(subject)
    assert subject.input_batch.generators == {0: "a"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.int32, torch.int64])
def test_expand_repeats_each_value_for_its_drafts(dtype: torch.dtype) -> None:
    values = torch.tensor([0, 7, 9, 5], dtype=dtype)
    ends = torch.tensor([2, 2, 5, 6], dtype=torch.int32)
    output = torch.full((6,), -1, dtype=dtype)
    expand(output, values, ends, 0, 1, 8)
    assert output.tolist() == [1, 1, 9, 9, 9, 5]


def test_expand_takes_what_the_kernel_takes() -> None:
    import inspect

    from vllm.v1.sample.rejection_sampler import expand_kernel

    kernel = inspect.signature(getattr(expand_kernel, "func", expand_kernel))
    assert list(inspect.signature(expand).parameters) == list(kernel.parameters)
