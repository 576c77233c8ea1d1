"""A distillation whose answers come from real vLLM engines, in processes of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from rayspec.cli.main import app
from rayspec.draft.manifest import DraftManifest
from tests.support.distilling import build_target

pytestmark = pytest.mark.e2e


def test_engines_start_while_prompts_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    target, out = build_target(tmp_path / "target"), tmp_path / "draft"
    found = CliRunner().invoke(
        app,
        [
            *("distill", str(target), "--out", str(out), "--work", str(tmp_path / "work")),
            *("--device", "cpu", "--backend", "vllm", "--engines", "1", "--minutes", "4"),
            *("--texts", "60", "--answer-tokens", "16", "--steps", "8", "--batch-tokens", "512"),
            *("--hidden", "64", "--layers", "1", "--intermediate", "128"),
        ],
    )
    assert found.exit_code == 0, found.output + (tmp_path / "work" / "vllm.log").read_text()[-4000:]
    said = found.output
    assert said.index("engines of vLLM start") < said.index("to ask") < said.index("texts, 0.")
    manifest = DraftManifest.load(out)
    assert manifest is not None
    assert manifest.data["texts"] > 40
    assert not list((tmp_path / "work" / "texts").glob("*.partial"))
