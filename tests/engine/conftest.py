"""Engines for the tests of this folder: started once each, and never two at a time in a process."""

from __future__ import annotations

import os

# Before torch is imported: engine and draft share the cores, and a thread that spins while it
# waits takes its core from the other process.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from rayspec.draft.identity import tokenizer_hash
from rayspec.models.fetch import resolve
from rayspec.vllm_ext.config import ExtConfig
from tests.support.engines import Engine, EngineHost, start_engine
from tests.support.tiny import build_tiny

PROMPTS = Path(__file__).parents[1] / "data" / "prompts.jsonl"
THREADS = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0))),
}
BLOCK = 32


@pytest.fixture(scope="session")
def prompts() -> list[str]:
    lines = PROMPTS.read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["prompt"] for line in lines]


@pytest.fixture(scope="session")
def smollm2() -> Path:
    return resolve("smollm2")


@pytest.fixture(scope="session")
def tiny(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny(tmp_path_factory.mktemp("tiny"), smollm2)


# Not for the session: an engine that nobody asks still takes processor time from other tests.
@pytest.fixture(scope="package")
def host() -> Iterator[EngineHost]:
    host = EngineHost()
    yield host
    host.close()


@pytest.fixture
def v1(host: EngineHost, smollm2: Path) -> Iterator[Engine]:
    """The real model on the V1 runner, with too few blocks for what it is asked to hold."""

    def start() -> Engine:
        return start_engine(
            smollm2,
            ext=ExtConfig(deadline_s=1.5, checksum=True, tokenizer_hash=tokenizer_hash(smollm2)),
            k=4,
            environment=THREADS,
            max_model_len=8 * BLOCK,
            block_size=BLOCK,
            num_gpu_blocks_override=14,
            max_num_seqs=8,
            max_num_batched_tokens=2 * BLOCK,
        )

    engine = host.get("v1", start)
    yield engine
    assert engine.status()["errors"] == {}


@pytest.fixture
def v2(host: EngineHost, tiny: Path) -> Iterator[Engine]:
    """A tiny model on the V2 runner, its kernels interpreted."""
    engine = host.get("v2", lambda: start_v2(tiny, 1))
    yield engine
    assert engine.status()["errors"] == {}


@pytest.fixture
def v2_tp2(host: EngineHost, tiny: Path) -> Iterator[Engine]:
    """The same on two tensor-parallel ranks, with the scheduler a step ahead."""
    engine = host.get("v2_tp2", lambda: start_v2(tiny, 2))
    yield engine
    assert all(status["errors"] == {} for status in engine.rpc("rayspec_status"))


@pytest.fixture
def v2_shards(host: EngineHost, tiny: Path) -> Iterator[Engine]:
    """One rank whose slots two drafts share, with the scheduler a step ahead."""
    engine = host.get("v2_shards", lambda: start_v2(tiny, 1, shards=2))
    yield engine
    assert engine.status()["errors"] == {}


@pytest.fixture
def v1_candidate(host: EngineHost, tiny: Path) -> Iterator[Engine]:
    """The V1 runner with a link more, for a new version of the draft."""

    def start() -> Engine:
        return start_engine(
            tiny,
            ext=ExtConfig(
                deadline_s=1.5,
                checksum=True,
                tokenizer_hash=tokenizer_hash(tiny),
                candidate=True,
            ),
            k=3,
            environment=THREADS,
            max_model_len=6 * BLOCK,
            block_size=BLOCK,
            num_gpu_blocks_override=8,
            max_num_seqs=4,
            max_num_batched_tokens=2 * BLOCK,
        )

    engine = host.get("v1_candidate", start)
    yield engine
    assert engine.status()["errors"] == {}


@pytest.fixture
def v2_candidate(host: EngineHost, tiny: Path) -> Iterator[Engine]:
    """The V2 runner with it, with the scheduler a step ahead."""
    engine = host.get("v2_candidate", lambda: start_v2(tiny, 1, candidate=True))
    yield engine
    assert engine.status()["errors"] == {}


def start_v2(model: Path, ranks: int, *, shards: int = 1, candidate: bool = False) -> Engine:
    threads = THREADS if ranks == 1 else {"VLLM_CPU_OMP_THREADS_BIND": "0|1"}
    return start_engine(
        model,
        ext=ExtConfig(
            deadline_s=1.5,
            checksum=True,
            tokenizer_hash=tokenizer_hash(model),
            draft_shards=shards,
            candidate=candidate,
        ),
        interpreted=True,
        asynchronous=ranks > 1 or shards > 1 or candidate,
        k=3,
        k_tiers=(1,),
        environment=threads,
        tensor_parallel_size=ranks,
        max_model_len=6 * BLOCK,
        block_size=BLOCK,
        num_gpu_blocks_override=8,
        max_num_seqs=4,
        max_num_batched_tokens=2 * BLOCK,
    )
