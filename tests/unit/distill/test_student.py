from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoTokenizer

from rayspec.distill import student
from rayspec.distill.presets import PRESETS, Preset, default_preset
from rayspec.draft.fused.shape import supports
from rayspec.draft.identity import describe_difference
from rayspec.errors import ConfigError, ModelError
from tests.support.distilling import VOCAB, build_target

CPU = torch.device("cpu")
SMOLLM2 = {"vocab_size": 49152, "max_position_embeddings": 8192, "hidden_size": 576}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_run_on_the_fused_kernels(name: str, tmp_path: Path) -> None:
    config = PRESETS[name].config({**SMOLLM2, "eos_token_id": 2})
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert supports(tmp_path) is None
    found = AutoConfig.from_pretrained(tmp_path)
    assert found.vocab_size == 49152
    assert found.max_position_embeddings == 8192
    assert found.eos_token_id == 2


def test_the_preset_of_the_shipped_draft_is_small_enough() -> None:
    preset = PRESETS[default_preset(SMOLLM2)]
    layer = 4 * preset.hidden * preset.heads * 64 + 3 * preset.hidden * preset.intermediate
    weights = 49152 * preset.hidden + preset.layers * layer
    assert 5e6 < weights < 13.2e6  # 30 MB with the tokenizer


def test_default_presets_grow_with_the_target() -> None:
    widths = (576, 1024, 4096, 8192)
    assert [default_preset({"hidden_size": width}) for width in widths] == list(PRESETS)
    assert default_preset({"hidden_size": 1, "text_config": {"hidden_size": 4096}}) == "shallow"


def test_resized() -> None:
    preset = PRESETS["small"]
    assert preset.resized(layers=1) == Preset(512, 1, 2048, 8, 4)
    assert preset.resized(hidden=256) == Preset(256, 3, 1024, 4, 4)
    assert preset.resized(hidden=256, intermediate=512, layers=2) == Preset(256, 2, 512, 4, 4)
    with pytest.raises(ConfigError, match="hidden = 100: must be a multiple of 16"):
        preset.resized(hidden=100)


def test_starts_from_the_targets_embedding(tmp_path: Path) -> None:
    target = build_target(tmp_path)
    draft = student.build(target, Preset(32, 1, 64, 1, 1, 16))
    ours = draft.get_input_embeddings().weight.detach()
    theirs = student.load(target, torch.float32, CPU).get_output_embeddings().weight.detach()
    assert ours.shape == (VOCAB, 32)
    assert draft.get_output_embeddings().weight is draft.get_input_embeddings().weight
    # Inner products of tokens survive as well as half of the components can keep them.
    similar = torch.corrcoef(
        torch.stack([(ours @ ours.T).flatten(), (theirs @ theirs.T).flatten()])
    )
    assert similar[0, 1] > 0.8
    full = student.principal(theirs, 64)
    assert torch.allclose(full @ full.T, theirs @ theirs.T, atol=1e-3)
    assert student.principal(theirs, 100).shape == (VOCAB, 64)


def test_written_drafts_are_ordinary_folders(tmp_path: Path) -> None:
    target, out = build_target(tmp_path / "target"), tmp_path / "draft"
    draft = student.build(target, Preset(32, 2, 64, 1, 1, 16))
    out.mkdir()
    student.write(draft, target, out)
    assert describe_difference(target, out) is None
    found = student.load(out, torch.bfloat16, CPU)
    ids = torch.tensor([[1, 5, 9]])
    assert torch.equal(found(ids).logits, draft(ids).logits)
    assert AutoTokenizer.from_pretrained(out).chat_template
    assert {path.stat().st_mode & 0o777 for path in out.iterdir()} == {0o644}


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot load"):
        student.load(tmp_path, torch.float32, CPU)
