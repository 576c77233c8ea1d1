from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rayspec.routing.types import K_ARG
from rayspec.vllm_ext.config import ExtConfig
from rayspec.vllm_ext.params import drafting_params, link_spec
from rayspec.vllm_ext.session import DraftingParams


def sampling(extra_args: Any) -> SimpleNamespace:
    return SimpleNamespace(temperature=0.5, seed=3, extra_args=extra_args)


@pytest.mark.parametrize(
    ("extra_args", "k"),
    [
        ({K_ARG: 0}, 0),
        ({K_ARG: 7, "another": "key"}, 7),
        (None, None),
        ({}, None),
        ({K_ARG: None}, None),
        ({K_ARG: -1}, None),
        ({K_ARG: True}, None),
        ({K_ARG: "2"}, None),
        ({K_ARG: [1]}, None),
    ],
)
def test_k_of_a_request(extra_args: Any, k: int | None) -> None:
    assert drafting_params(sampling(extra_args)) == DraftingParams(k, 0.5, 3)


def test_a_request_without_sampling_never_speculates() -> None:
    assert drafting_params(None).k == 0


def test_link_spec_of_a_configuration() -> None:
    vllm_config = SimpleNamespace(
        scheduler_config=SimpleNamespace(max_num_seqs=8),
        speculative_config=SimpleNamespace(num_speculative_tokens=4),
        model_config=SimpleNamespace(max_model_len=256, get_vocab_size=lambda: 100),
    )
    spec = link_spec(vllm_config, ExtConfig(deadline_s=0.3, checksum=True, tokenizer_hash="h"))
    assert (spec.slots, spec.k_max, spec.vocab_size, spec.max_len) == (8, 4, 100, 256)
    hello = spec.hello(9)
    assert (hello.epoch, hello.tokenizer_hash, hello.checksum) == (9, "h", True)
    assert spec.deadline_s == 0.3
