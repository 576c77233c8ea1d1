"""`rayspec distill` from end to end, with a tiny target on the CPU."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rayspec.cli.main import app
from rayspec.distill import run, train
from rayspec.distill.harvest import Harvest, harvest
from rayspec.distill.trim import FILE
from rayspec.draft.identity import model_hash, tokenizer_hash
from rayspec.draft.manifest import DraftManifest
from rayspec.draft.vocabulary import read_token_ids
from tests.support.distilling import VOCAB, build_target

QUICK = (
    *("--texts", "80", "--answer-tokens", "16", "--steps", "24", "--batch-tokens", "512"),
    *("--rate", "1e-2", "--top-k", "32", "--hidden", "64", "--layers", "1"),
    *("--intermediate", "128", "--device", "cpu"),
)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return build_target(tmp_path / "target")


@pytest.fixture
def few_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def some(seed: int) -> Harvest:
        return harvest(seed, files=40)

    monkeypatch.setattr(run, "harvest", some)


def distill(target: Path, out: Path, *arguments: str) -> str:
    found = CliRunner().invoke(app, ["distill", str(target), "--out", str(out), *arguments])
    if found.exception and not isinstance(found.exception, SystemExit):
        raise found.exception
    assert found.exit_code == 0, found.output
    return found.output


@pytest.mark.usefixtures("few_files")
def test_distill(target: Path, tmp_path: Path) -> None:
    out = tmp_path / "draft"
    output = distill(target, out, *QUICK, "--vocab-trim", "100")
    assert "held out" in output
    manifest = DraftManifest.load(out)
    assert manifest is not None
    assert manifest.target.model_hash == model_hash(target)
    assert manifest.target.tokenizer_hash == tokenizer_hash(target) == tokenizer_hash(out)
    assert manifest.acceptance["all"].texts >= 12
    assert manifest.acceptance["all"].sampled is not None
    assert manifest.acceptance["all"].sampled > 0.2
    assert "PSF-2.0" in manifest.data["licences"]
    assert manifest.data["texts"] > 0
    assert manifest.training["steps"] == 24
    assert len(read_token_ids(str(out / FILE), VOCAB)) == 100
    assert not (tmp_path / "draft.work").exists()
    checked = CliRunner().invoke(
        app, ["draft", "check", str(out), str(target), "-q", "--each", "1", "--tokens", "8"]
    )
    assert checked.exit_code == 0, checked.output


def prompts(folder: Path) -> Path:
    file = folder / "mine.jsonl"
    rows = [{"class": "legal", "prompt": f"word{number}"} for number in range(40)]
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


def stopped_after(count: int, original: Callable[..., Any]) -> Callable[..., Any]:
    """Return `original`, a generator, with Ctrl-C after `count` of what it yields."""

    def stopping(*args: Any, **options: Any) -> Iterator[Any]:
        with closing(original(*args, **options)) as steps:
            yield from islice(steps, count)
        raise KeyboardInterrupt

    return stopping


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_goes_on_after_a_stop(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before scores and while training, it ends with the weights of one that was not."""
    whole, out = tmp_path / "whole", tmp_path / "stopped"
    arguments = (*QUICK, "--prompts", str(prompts(tmp_path)))
    distill(target, whole, *arguments)
    for name, stop in (("score", interrupted), ("learn", stopped_after(9, train.learn))):
        with monkeypatch.context() as patch:
            patch.setattr(run, name, stop)
            command = ["distill", str(target), "--out", str(out), *arguments]
            found = CliRunner().invoke(app, command)
        assert found.exit_code == 130
        assert "the same command goes on" in found.output
        assert not out.exists()
    output = distill(target, out, *arguments)
    assert "answers:" not in output
    assert model_hash(out) == model_hash(whole)


def test_own_prompts_and_another_draft_of_the_same_texts(target: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    arguments = (*QUICK, "--prompts", str(prompts(tmp_path)), "--work", str(work))
    distill(target, tmp_path / "a", *arguments)
    shards = {path: path.stat().st_mtime_ns for path in (work / "texts").iterdir()}
    distill(target, tmp_path / "b", *arguments, "--loss", "tv")
    assert {path: path.stat().st_mtime_ns for path in (work / "texts").iterdir()} == shards
    assert model_hash(tmp_path / "a") != model_hash(tmp_path / "b")
    manifest = DraftManifest.load(tmp_path / "b")
    assert manifest is not None
    assert set(manifest.acceptance) == {"legal", "all"}
    refused = CliRunner().invoke(
        app,
        ["distill", str(target), "--out", str(tmp_path / "c"), *arguments, "--answer-tokens", "9"],
    )
    assert "give another one" in str(refused.exception)


def test_an_output_folder_that_is_in_use(target: Path) -> None:
    found = CliRunner().invoke(app, ["distill", str(target), "--out", str(target), *QUICK])
    assert "give a new folder" in str(found.exception)
