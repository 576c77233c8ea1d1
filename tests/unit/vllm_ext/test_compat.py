from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from rayspec.vllm_ext import compat
from rayspec.vllm_ext.compat import HOOKS, Device, Hook

SOURCES = {hook.module: ast.parse("") for hooks in HOOKS.values() for hook in hooks}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_installed_vllm_fits(device: Device) -> None:
    result = compat.check(device)
    assert result.ok, result.reason
    assert result.reason is None


def test_the_check_imports_no_vllm() -> None:
    code = (
        "import sys; from rayspec.vllm_ext import compat; "
        "assert compat.check('cpu').ok and compat.check('cuda').ok; "
        "assert not {'vllm', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("version", ["0.31.2", "0.33.0", "1.32.0"])
def test_another_version_does_not_fit(version: str) -> None:
    result = compat.check("cpu", version=version)
    assert not result.ok
    assert version in (result.reason or "")
    assert result.worker


@pytest.mark.parametrize("version", ["0.32.0", "0.32.7", "0.32.1+cpu"])
def test_patches_of_the_version_fit(version: str) -> None:
    assert compat.check("cpu", version=version).ok


def test_no_vllm() -> None:
    assert compat.check("cuda", version="none").reason == "vLLM none: vLLM is not installed"


def test_every_missing_hook_is_named() -> None:
    result = compat.check("cpu", version="0.32.0", source=SOURCES.get)
    assert len(result.problems) == len(HOOKS["cpu"])
    assert not result.worker


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("class A:\n    def f(self, x, *, y=1): self.z = 1", None),
        ("class A:\n    z: int\n    async def f(self, x, y): ...", None),
        ("class A:\n    z: int\n    def f(self, x): ...", "mod.A.f has no y"),
        ("class A:\n    def f(self, x, y): ...", "mod.A has no z"),
        ("class A:\n    z: int", "no A.f in mod"),
        ("def A(): ...", "mod.A has no z"),
    ],
)
def test_parameters_and_members(
    source: str, problem: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = (Hook("mod", "A", members=("z",)), Hook("mod", "A.f", ("x", "y")))
    monkeypatch.setattr(compat, "HOOKS", {"cpu": hooks})
    monkeypatch.setattr(compat, "WORKERS", {"cpu": ()})
    result = compat.check("cpu", version="0.32.0", source={"mod": ast.parse(source)}.get)
    if problem is None:
        assert result.ok
    else:
        assert problem in result.problems


def test_a_module_that_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "HOOKS", {"cpu": (Hook("vllm.no.such_module", "A"),)})
    assert compat.check("cpu").problems == ("no module vllm.no.such_module",)
