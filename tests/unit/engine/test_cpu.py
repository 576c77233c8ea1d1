from __future__ import annotations

import os
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayspec.engine.cpu import CpuShare, bind_cores, fastest_dtype
from tests.support.properties import quick


@quick
@given(st.integers(1, 64), st.integers(1, 8))
def test_engines_share_all_cores_without_overlap(cores: int, engines: int) -> None:
    shares = [CpuShare(index, engines).cores(range(cores)) for index in range(engines)]

    assert all(shares)
    if engines <= cores:
        assert list(chain(*shares)) == list(range(cores))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_workers_of_an_engine_split_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_CPU_OMP_THREADS_BIND", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {4, 5, 6, 7, 8, 9, 10, 11})

    bind_cores(CpuShare(1, 2), workers=2)

    assert os.environ["VLLM_CPU_OMP_THREADS_BIND"] == "8,9|10,11"


def test_a_binding_of_the_user_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0-3")

    bind_cores(CpuShare(0, 1), workers=1)

    assert os.environ["VLLM_CPU_OMP_THREADS_BIND"] == "0-3"


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [
        ("fpu avx2", "float32"),
        ("fpu avx512f", "float32"),
        ("fpu avx512_bf16", "bfloat16"),
        ("fpu amx_bf16 amx_tile", "bfloat16"),
    ],
)
def test_dtype_follows_the_processor(tmp_path: Path, flags: str, dtype: str) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")

    assert fastest_dtype(file) == dtype


def test_an_unknown_processor_gets_the_safe_format(tmp_path: Path) -> None:
    assert fastest_dtype(tmp_path / "nothing") == "float32"


def test_a_successor_shares_the_cores_of_the_replica_that_it_replaces() -> None:
    lane = CpuShare(1, 3)

    shares = [lane.of_replica(rank, replicas=2) for rank in range(4)]

    assert [share.index for share in shares] == [1, 2, 1, 2]
    assert all(share.total == 3 for share in shares)
