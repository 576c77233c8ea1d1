"""The cache builds once, verifies, and repairs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rayspec.models import cache


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use an empty cache."""
    monkeypatch.setenv("RAYSPEC_CACHE", str(tmp_path))
    return tmp_path / "models"


class Builder:
    """Builds a small model and counts how often."""

    def __init__(self, content: str = "weights") -> None:
        self.content = content
        self.calls = 0

    def __call__(self, folder: Path) -> str:
        self.calls += 1
        (folder / "model.safetensors").write_text(self.content)
        return "a test"


def test_builds_once_and_remembers_the_source(root: Path) -> None:
    build = Builder()
    assert cache.lookup("m") is None
    folder = cache.ensure("m", build)
    assert folder == root / "m"
    assert cache.ensure("m", build) == folder == cache.lookup("m")
    assert build.calls == 1
    assert cache.source(folder) == "a test"


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.unlink(),
        lambda file: file.write_text("w"),
        lambda file: file.write_text("WEIGHTS"),
        lambda file: (file.parent / cache.MANIFEST).write_text("{"),
        lambda file: (file.parent / cache.MANIFEST).write_text('{"format": 0}'),
    ],
    ids=["missing", "truncated", "same size", "unreadable manifest", "old format"],
)
def test_a_damaged_entry_is_built_anew(damage: Callable[[Path], None]) -> None:
    build = Builder()
    folder = cache.ensure("m", build)
    damage(folder / "model.safetensors")
    # The clock of a file system may be too coarse to show that a file was written twice.
    if (folder / "model.safetensors").exists():
        os.utime(folder / "model.safetensors", ns=(1, 1))
    assert cache.lookup("m") is None
    assert cache.ensure("m", build) == folder
    assert build.calls == 2
    assert (folder / "model.safetensors").read_text() == "weights"


def test_an_unchanged_copy_is_accepted() -> None:
    folder = cache.ensure("m", Builder())
    os.utime(folder / "model.safetensors", ns=(1, 1))
    assert cache.lookup("m") == folder


def test_a_failed_build_leaves_nothing(root: Path) -> None:
    def fail(folder: Path) -> str:
        (folder / "half").write_text("x")
        raise ValueError("no network")

    with pytest.raises(ValueError, match="no network"):
        cache.ensure("m", fail)
    assert [path.name for path in root.iterdir()] == [".m.lock"]


def test_what_a_killed_build_left_is_removed(root: Path) -> None:
    (root / ".m.building-killed").mkdir(parents=True)
    cache.ensure("m", Builder())
    assert sorted(path.name for path in root.iterdir()) == [".m.lock", "m"]


def test_files_are_readable_for_others() -> None:
    folder = cache.ensure("m", Builder())
    assert folder.stat().st_mode & 0o777 == 0o755
    assert (folder / "model.safetensors").stat().st_mode & 0o777 == 0o644


def test_processes_that_start_together_build_once(root: Path) -> None:
    script = (
        "import sys, time\n"
        "from rayspec.models import cache\n"
        "def build(folder):\n"
        "    time.sleep(0.2)\n"
        "    (folder / 'config.json').write_text('{}')\n"
        "    print('built', flush=True)\n"
        "    return 'a test'\n"
        "print(cache.ensure('m', build))\n"
    )
    command = [sys.executable, "-c", script]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = [process.communicate(timeout=30)[0].split() for process in started]
    assert sum("built" in output for output in outputs) == 1
    assert {output[-1] for output in outputs} == {str(root / "m")}
