from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from rayspec.app import build
from rayspec.engine.autoscaling import AUTOSCALING_POLICY
from rayspec.errors import ConfigError
from rayspec.routing import Lane

ROOT = Path(__file__).resolve().parents[2]
SPECULATIVE: dict[str, Any] = {"speculative": {}, "draft": {"kind": "ngram"}}
PLAIN: dict[str, Any] = {"plain": {"num_replicas": 2}}


def parts(args: dict[str, Any]) -> tuple[Any, dict[Lane, Any], list[Any]]:
    """Return the ingress deployment, the lanes' deployments, and the drafts'."""
    ingress: Any = build({"model": "smollm2", **args})._bound_deployment
    _, lanes, drafts = ingress.init_args
    deployments = {lane: target._bound_deployment for lane, target in lanes.items()}
    return ingress, deployments, [draft._bound_deployment for draft in drafts]


def test_both_lanes_share_one_draft_and_the_machine() -> None:
    ingress, lanes, drafts = parts(SPECULATIVE | PLAIN)

    assert ingress.name == "Ingress"
    assert {lane: d.name for lane, d in lanes.items()} == {
        Lane.SPECULATIVE: "SpeculativeTarget",
        Lane.PLAIN: "PlainTarget",
    }
    assert [draft.name for draft in drafts] == ["Draft"]
    shares = [d.init_args[1] for d in lanes.values()]
    assert [(share.index, share.total) for share in shares] == [(0, 3), (1, 3)]


def test_three_lanes_are_three_deployments() -> None:
    own = {"draft": {"method": "ngram"}}
    _, lanes, drafts = parts(SPECULATIVE | PLAIN | {"alternative": own})

    assert [(lane, d.name, d.func_or_class.__name__) for lane, d in lanes.items()] == [
        (Lane.SPECULATIVE, "SpeculativeTarget", "SpeculativeTarget"),
        (Lane.ALTERNATIVE, "AlternativeTarget", "OwnDraftTarget"),
        (Lane.PLAIN, "PlainTarget", "PlainTarget"),
    ]
    assert [draft.name for draft in drafts] == ["Draft"]
    shares = [d.init_args[1] for d in lanes.values()]
    assert [(share.index, share.total) for share in shares] == [(0, 4), (1, 4), (2, 4)]


def test_a_new_draft_is_bound_to_the_ingress_alone() -> None:
    old = {"kind": "model", "model": "old"}
    new = {**old, "candidate": {"model": "new"}}
    _, before, _ = parts({"speculative": {}, "draft": old})
    ingress, after, drafts = parts({"speculative": {}, "draft": new})

    assert [draft.name for draft in drafts] == ["Draft", "DraftCandidate"]
    assert ingress.init_args[0].trial is not None
    targets = [lanes[Lane.SPECULATIVE] for lanes in (before, after)]
    specs, handles = zip(*((t.init_args[0], t.init_args[2]) for t in targets), strict=True)
    assert specs[0] == specs[1]
    assert [len(each) for each in handles] == [1, 1]


def test_an_engine_that_drafts_itself_has_no_draft_deployment() -> None:
    _, lanes, drafts = parts({"speculative": {"draft": {"method": "ngram"}}, **PLAIN})

    assert drafts == []
    target = lanes[Lane.SPECULATIVE]
    assert (target.name, target.func_or_class.__name__) == ("SpeculativeTarget", "OwnDraftTarget")
    assert len(target.init_args) == 2


@pytest.mark.parametrize(("args", "lane"), [(SPECULATIVE, Lane.SPECULATIVE), (PLAIN, Lane.PLAIN)])
def test_either_lane_may_be_left_out(args: dict[str, Any], lane: Lane) -> None:
    _, lanes, drafts = parts(args)

    assert set(lanes) == {lane}
    assert bool(drafts) == (lane is Lane.SPECULATIVE)


def test_every_draft_is_a_deployment_with_its_own_gpu() -> None:
    draft = {"kind": "model", "model": "d", "data_parallel_size": 3}
    ingress, lanes, drafts = parts({"device": "cuda", "speculative": {}, "draft": draft})

    assert [draft.name for draft in drafts] == ["Draft", "Draft-1", "Draft-2"]
    assert [draft.ray_actor_options["num_gpus"] for draft in drafts] == [1.0] * 3
    # The target attaches shard i to the i-th draft, the ingress reads the metrics of all.
    target = lanes[Lane.SPECULATIVE]
    for handles in (target.init_args[2], ingress.init_args[2]):
        assert [each._bound_deployment.name for each in handles] == [d.name for d in drafts]


def test_full_lanes_answer_429() -> None:
    _, lanes, _ = parts(PLAIN)
    config = lanes[Lane.PLAIN]._deployment_config

    assert config.backpressure_config.status_code == 429
    assert config.num_replicas == 2


def test_the_plain_lane_can_follow_its_load() -> None:
    autoscaling = {"max_replicas": 3, "target_sequences": 8, "downscale_delay_s": 60}
    _, lanes, _ = parts(SPECULATIVE | {"plain": {"autoscaling": autoscaling}})
    plain = lanes[Lane.PLAIN]
    config = plain._deployment_config.autoscaling_config

    assert (config.min_replicas, config.max_replicas) == (1, 3)
    assert (config.target_ongoing_requests, config.downscale_delay_s) == (8, 60)
    assert config.policy.policy_function == AUTOSCALING_POLICY
    # Every engine that there may be has its cores.
    assert plain.init_args[1].total == 4


def test_successors_serve_before_old_replicas_stop() -> None:
    ingress, lanes, drafts = parts(SPECULATIVE | PLAIN)
    deployments = [ingress, *lanes.values()]

    assert [d._deployment_config.max_surge_percent for d in deployments] == [100] * 3
    assert all(d._deployment_config.graceful_shutdown_timeout_s > 600 for d in deployments)
    assert [d._deployment_config.max_surge_percent for d in drafts] == [0]


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


def test_lanes_and_draft_go_to_the_nodes_that_have_what_they_take() -> None:
    args = {
        "speculative": {"resources": {"target": 1}},
        "plain": {},
        "draft": {"kind": "ngram", "resources": {"draft": 0.5}},
        "ingress": {"resources": {"target": 0.01}},
    }
    ingress, lanes, (draft,) = parts(args)

    taken = [d.ray_actor_options.get("resources") for d in (*lanes.values(), draft, ingress)]
    assert taken == [{"target": 1}, {}, {"draft": 0.5}, {"target": 0.01}]


@pytest.mark.parametrize(
    ("resources", "why"), [({"GPU": 1}, "name of your own"), ({"node": 0}, "amount above 0")]
)
def test_resources_are_ones_own_and_real(resources: dict[str, float], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        parts({"plain": {"resources": resources}})
