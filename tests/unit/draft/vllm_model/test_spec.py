from __future__ import annotations

import json
from pathlib import Path

import pytest

from rayspec.draft.vllm_model.spec import VllmModelSpec
from rayspec.errors import ConfigError, ModelError


def folder(path: Path, architecture: str = "LlamaForCausalLM") -> str:
    (path / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    return str(path)


def test_defaults_follow_the_device(tmp_path: Path) -> None:
    cpu = VllmModelSpec(path=folder(tmp_path))
    cuda = VllmModelSpec(path=folder(tmp_path), device="cuda:1")
    cpu.check()
    cuda.check()
    assert (cpu.chosen_dtype, cpu.chosen_attention, cpu.chosen_block_size) == ("float32", None, 32)
    assert (cuda.chosen_dtype, cuda.chosen_attention) == ("bfloat16", "FLASH_ATTN")
    assert cuda.chosen_block_size == 16


def test_what_is_said_wins(tmp_path: Path) -> None:
    spec = VllmModelSpec(
        path=folder(tmp_path),
        device="cuda",
        dtype="float16",
        attention="TRITON_ATTN",
        block_size=64,
    )
    assert spec.chosen_dtype == "float16"
    assert spec.chosen_attention == "TRITON_ATTN"
    assert spec.chosen_block_size == 64


def test_refuses_a_family_that_is_not_tested(tmp_path: Path) -> None:
    path = folder(tmp_path, "MambaForCausalLM")
    with pytest.raises(ModelError, match=r"MambaForCausalLM .* supported are Gemma2ForCausalLM"):
        VllmModelSpec(path=path).check()


def test_refuses_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a model folder"):
        VllmModelSpec(path=str(tmp_path)).check()


def test_refuses_fp8_on_a_cpu(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs a CUDA device"):
        VllmModelSpec(path=folder(tmp_path), quantization="fp8").check()
