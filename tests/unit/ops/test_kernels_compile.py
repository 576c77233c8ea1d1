"""The CUDA sources compile for the architectures that are served, and ship with the package."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from rayspec.ops import loader


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_100"])
def test_nvcc_compiles_every_kernel(arch: str, tmp_path: Path) -> None:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("needs nvcc, the compiler of the CUDA toolkit")
    folder = loader.sources()
    target = tmp_path / "verify.cubin"
    command = [nvcc, "-std=c++17", f"-arch={arch}", f"-I{folder / 'include'}", "-cubin"]
    command += ["-Xptxas=-v", "-Werror=all-warnings", "-o", str(target)]
    done = subprocess.run(
        [*command, str(folder / "csrc" / "verify.cu")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    code = target.read_bytes()
    for name in loader._NAMES:
        assert name.encode() in code
    # The reading kernel keeps what it reads in registers: some words may go elsewhere, no tile.
    reports = done.stderr.split("Compiling entry function")
    reading = [report for report in reports if "rayspec_read_rows" in report.split("for")[0]]
    assert len(reading) == 3
    for report in reading:
        spilled = re.search(r"(\d+) bytes spill stores", report)
        assert spilled is not None
        assert int(spilled[1]) <= 32


def test_compiled_code_is_kept_by_what_it_depends_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYSPEC_CACHE", str(tmp_path))
    calls: list[str] = []

    def compiler(folder: Path, arch: str, macros: tuple[str, ...]) -> bytes:
        calls.append(arch)
        return arch.encode()

    monkeypatch.setattr(loader, "_nvrtc", compiler)
    for arch in ("sm_80", "sm_90", "sm_80"):
        assert loader.compile_kernels(arch) == arch.encode()
    assert calls == ["sm_80", "sm_90"]
    copied = tmp_path / "sources"
    shutil.copytree(loader.sources(), copied)
    monkeypatch.setattr(loader, "_PLACES", (copied,))
    loader.compile_kernels("sm_80")
    assert calls == ["sm_80", "sm_90"]
    header = copied / "include" / "random.cuh"
    header.write_text(header.read_text() + "// changed\n")
    loader.compile_kernels("sm_80")
    assert calls == ["sm_80", "sm_90", "sm_80"]


def test_missing_sources_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "_PLACES", (tmp_path,))
    with pytest.raises(loader.KernelError, match="not installed"):
        loader.compile_kernels("sm_90")
