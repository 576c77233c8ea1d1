"""Every shipped deployment fits the GPUs that its name promises, and vLLM takes its arguments."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rayspec.config import AppSpec, TargetSpec, derive, load
from rayspec.engine import launch

FOLDER = Path(__file__).resolve().parents[3] / "deployments"
FILES = sorted(FOLDER.glob("*.yaml"))
ON_GPUS = [file for file in FILES if file.name.startswith("gpu-")]


def lanes(app: AppSpec) -> list[TargetSpec]:
    return list(app.targets)


def named(file: Path) -> str:
    return file.name


@pytest.mark.parametrize("file", ON_GPUS, ids=named)
def test_it_needs_the_gpus_that_its_name_says(file: Path) -> None:
    app = derive(load(file), has_gpu=True)
    assert app.draft is not None
    shares = [lane.num_gpus for lane in lanes(app) for _ in range(lane.num_replicas)]
    shares += [app.draft.num_gpus] * app.draft.replicas
    whole = sum(share for share in shares if share >= 1)
    parts = sum(share for share in shares if share < 1)
    match = re.match(r"gpu-(\d+)", file.name)
    assert match is not None
    assert whole + (1 if 0 < parts <= 1 else parts) == int(match[1])


@pytest.mark.parametrize("file", ON_GPUS, ids=named)
def test_target_and_draft_meet_over_nccl(file: Path) -> None:
    app = derive(load(file), has_gpu=True)
    assert app.speculative is not None
    assert app.speculative.speculation is not None
    assert app.speculative.speculation.transport == "nccl"
    assert app.draft is not None
    # Two processes on one GPU must look like two hosts to NCCL, and others must not.
    shared = app.draft.num_gpus < 1
    ids = {spec.env.get("NCCL_HOSTID") for spec in (app.speculative, app.draft)}
    assert ids == ({"rayspec-target", "rayspec-draft"} if shared else {None})


@pytest.mark.parametrize("file", FILES, ids=named)
def test_vllm_takes_its_arguments(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm.engine.arg_utils import AsyncEngineArgs

    monkeypatch.setattr(launch, "tokenizer_hash", lambda path: "hash")
    for lane in lanes(derive(load(file), has_gpu=file in ON_GPUS)):
        speculates = lane.speculation is not None
        args = (launch.speculative_args if speculates else launch.plain_args)(lane, tmp_path)
        built = AsyncEngineArgs(**args)
        assert built.tensor_parallel_size == lane.tensor_parallel_size
        assert (built.speculative_config is not None) == speculates
