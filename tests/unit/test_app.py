from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from rayspec.app import build
from rayspec.errors import ConfigError
from rayspec.routing import Lane

ROOT = Path(__file__).resolve().parents[2]
SPECULATIVE: dict[str, Any] = {"speculative": {}, "draft": {"kind": "ngram"}}
PLAIN: dict[str, Any] = {"plain": {"num_replicas": 2}}


def parts(args: dict[str, Any]) -> tuple[Any, dict[Lane, Any], Any]:
    """Return the ingress deployment, the lanes' deployments, and the draft's or None."""
    ingress: Any = build({"model": "smollm2", **args})._bound_deployment
    _, lanes, draft = ingress.init_args
    deployments = {lane: target._bound_deployment for lane, target in lanes.items()}
    return ingress, deployments, None if draft is None else draft._bound_deployment


def test_both_lanes_share_one_draft_and_the_machine() -> None:
    ingress, lanes, draft = parts(SPECULATIVE | PLAIN)

    assert ingress.name == "Ingress"
    assert {lane: d.name for lane, d in lanes.items()} == {
        Lane.SPECULATIVE: "SpeculativeTarget",
        Lane.PLAIN: "PlainTarget",
    }
    assert draft.name == "Draft"
    shares = [d.init_args[1] for d in lanes.values()]
    assert [(share.index, share.total) for share in shares] == [(0, 3), (1, 3)]


@pytest.mark.parametrize(("args", "lane"), [(SPECULATIVE, Lane.SPECULATIVE), (PLAIN, Lane.PLAIN)])
def test_either_lane_may_be_left_out(args: dict[str, Any], lane: Lane) -> None:
    _, lanes, draft = parts(args)

    assert set(lanes) == {lane}
    assert (draft is not None) == (lane is Lane.SPECULATIVE)


def test_full_lanes_answer_429() -> None:
    _, lanes, _ = parts(PLAIN)
    config = lanes[Lane.PLAIN]._deployment_config

    assert config.backpressure_config.status_code == 429
    assert config.num_replicas == 2


def test_a_wrong_setting_is_one_line_with_field_value_and_remedy() -> None:
    with pytest.raises(ConfigError) as caught:
        build({"model": "smollm2", "plain": {"max_num_seqs": 0}})

    assert str(caught.value) == "plain.max_num_seqs = 0: must be at least 1"


@pytest.mark.parametrize(
    "file", sorted((ROOT / "deployments").glob("*.yaml")), ids=lambda f: f.name
)
def test_every_shipped_deployment_builds(file: Path) -> None:
    (application,) = yaml.safe_load(file.read_text())["applications"]

    assert application["import_path"] == "rayspec.app:build"
    build(application["args"])
