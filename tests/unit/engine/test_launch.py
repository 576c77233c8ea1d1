"""What a lane's engine is started with, from its configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rayspec.config import TargetSpec, derive, foreign, parse
from rayspec.engine import launch
from rayspec.errors import ConfigError
from rayspec.vllm_ext.config import ExtConfig
from rayspec.vllm_ext.cpu_executor import ONE_PROCESS

BASE: dict[str, Any] = {
    "model": "m",
    "plain": {},
    "speculative": {},
    "draft": {"kind": "model", "model": "d"},
}


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "tokenizer_hash", lambda path: "hash")


def lane(name: str, args: dict[str, Any], *, has_gpu: bool = True) -> TargetSpec:
    target: TargetSpec | None = getattr(derive(parse({**BASE, **args}), has_gpu=has_gpu), name)
    assert target is not None
    return target


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, None),
        ({"num_gpus": 1}, None),
        ({"num_gpus": 0.4}, 0.36),
        ({"num_gpus": 0.4, "engine_args": {"gpu_memory_utilization": 0.2}}, 0.2),
        ({"tensor_parallel_size": 2}, None),
    ],
)
def test_an_engine_on_a_share_of_a_gpu_takes_that_share_of_its_memory(
    settings: dict[str, Any], expected: float | None
) -> None:
    args = launch.plain_args(lane("plain", {"plain": settings}), Path("m"))
    assert args.get("gpu_memory_utilization") == expected


@pytest.mark.parametrize(
    ("ranks", "has_gpu", "backend"),
    [(1, True, "uni"), (1, False, ONE_PROCESS), (2, True, "mp"), (2, False, "mp")],
)
def test_an_engine_of_one_rank_has_no_workers(ranks: int, has_gpu: bool, backend: str) -> None:
    settings = {"plain": {"tensor_parallel_size": ranks}}
    args = launch.plain_args(lane("plain", settings, has_gpu=has_gpu), Path("m"))
    assert args["distributed_executor_backend"] == backend


def test_what_the_worker_learns_about_its_drafts() -> None:
    draft = BASE["draft"] | {"sampling": "sparse", "top_m": 8, "data_parallel_size": 2}
    args = launch.speculative_args(lane("speculative", {"draft": draft}), Path("m"))
    ext = ExtConfig.from_additional_config(args["additional_config"])
    assert (ext.transport, ext.q_mode, ext.q_top, ext.draft_shards) == ("nccl", "sparse", 8, 2)
    assert (ext.deadline_s, ext.tokenizer_hash) == (0.02, "hash")


def test_on_the_cpu_everything_goes_over_gloo() -> None:
    args = launch.speculative_args(lane("speculative", {}, has_gpu=False), Path("m"))
    ext = ExtConfig.from_additional_config(args["additional_config"])
    assert (ext.transport, ext.q_mode, ext.q_top, ext.draft_shards) == ("gloo", "none", 0, 1)
    assert "gpu_memory_utilization" not in args


def test_an_engine_that_drafts_itself_gets_its_head(tmp_path: Path) -> None:
    head = tmp_path / "head"
    head.mkdir()
    (head / "config.json").write_text("{}")
    own = {"draft": {"method": "eagle3", "model": str(head)}, "num_speculative_tokens": 3}
    args = launch.own_draft_args(
        lane("speculative", {"speculative": own, "draft": None}, has_gpu=False), Path("m")
    )
    assert args["speculative_config"] == {
        "method": "eagle3",
        "num_speculative_tokens": 3,
        "model": str(head),
    }
    assert args["model"] == "m"


@pytest.mark.parametrize(("other", "fits"), [({}, True), ({"b": 1, "c": 2}, False)])
def test_a_draft_model_in_the_engine_has_the_targets_tokens(
    tmp_path: Path, other: dict[str, int], fits: bool
) -> None:
    for name, vocabulary in (("target", {"a": 0}), ("draft", {"a": 0} | other)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"vocab_size": 3}))
        (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
    draft = str(tmp_path / "draft")
    own = {"draft": {"method": "draft_model", "model": draft}}
    spec = lane("speculative", {"speculative": own, "draft": None}, has_gpu=False)
    if fits:
        assert launch.own_draft_args(spec, tmp_path / "target")["speculative_config"]["model"]
        return
    with pytest.raises(ConfigError, match=r"^speculative.draft.model = .*token 'b'"):
        launch.own_draft_args(spec, tmp_path / "target")


HEADS: dict[str, dict[str, Any]] = {
    "ngram": {},
    "suffix": {},
    "draft_model": {"model": "head", "args": {"use_heterogeneous_vocab": True}},
    "eagle": {"model": "head"},
    "eagle3": {"model": "head"},
    "mtp": {},
}


@pytest.mark.parametrize("method", list(HEADS))
def test_the_alternative_lane_drafts_by_any_method_beside_a_link(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign, "lacks", lambda package: False)
    head = tmp_path / "head"
    head.mkdir()
    (head / "config.json").write_text("{}")
    own = {"method": method, **HEADS[method]}
    if "model" in own:
        own["model"] = str(head)
    changes = {"alternative": {"draft": own, "num_speculative_tokens": 3}}
    spec = lane("alternative", changes, has_gpu=False)
    config = launch.own_draft_args(spec, Path("m"))["speculative_config"]
    assert config["method"] == method
    assert config["num_speculative_tokens"] == 3
    assert config.get("model") == own.get("model")
    linked = launch.speculative_args(lane("speculative", changes, has_gpu=False), Path("m"))
    assert linked["speculative_config"]["method"] != method
    assert ExtConfig.from_additional_config(linked["additional_config"]) is not None


def test_what_does_not_fit_names_the_lane(tmp_path: Path) -> None:
    for name, vocabulary in (("target", {"a": 0}), ("draft", {"b": 0})):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"vocab_size": 3}))
        (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
    own = {"draft": {"method": "draft_model", "model": str(tmp_path / "draft")}}
    spec = lane("alternative", {"alternative": own}, has_gpu=False)
    with pytest.raises(ConfigError, match=r"^alternative.draft.model = "):
        launch.own_draft_args(spec, tmp_path / "target")
