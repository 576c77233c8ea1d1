"""From the configuration to what each deployment is told."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from rayspec.config import SpeculationSpec, derive, parse
from rayspec.ingress.classify import ClassRule
from rayspec.routing.policy import ClassPolicy
from rayspec.routing.types import Lane, Speculation

ARGS: dict[str, Any] = {
    "model": "smollm2",
    "plain": {},
    "speculative": {"num_speculative_tokens": 5, "k_tiers": [3, 1], "draft_deadline_ms": 40},
    "draft": {"kind": "ngram", "ngram_max": 3},
}


def test_lanes_share_the_model_and_differ_in_speculation() -> None:
    app = derive(parse(ARGS), has_gpu=False)
    assert app.plain is not None
    assert app.speculative is not None
    assert (app.plain.lane, app.plain.speculation) == (Lane.PLAIN, None)
    assert app.speculative.lane is Lane.SPECULATIVE
    assert app.speculative.speculation == SpeculationSpec(5, (0, 1, 3, 5), 0.04)
    assert app.plain.served_model_name == app.ingress.served_model_name == "smollm2"


@pytest.mark.parametrize(
    ("device", "has_gpu", "expected", "gpus"),
    [
        ("auto", False, "cpu", 0.0),
        ("auto", True, "cuda", 2.0),
        ("cpu", True, "cpu", 0.0),
        ("cuda", False, "cuda", 2.0),
    ],
)
def test_device_and_gpus(device: str, has_gpu: bool, expected: str, gpus: float) -> None:
    args = {**ARGS, "device": device, "plain": {"tensor_parallel_size": 2}}
    plain = derive(parse(args), has_gpu=has_gpu).plain
    assert plain is not None
    assert (plain.device, plain.num_gpus) == (expected, gpus)


def test_a_share_of_a_gpu_is_kept() -> None:
    plain = derive(parse({**ARGS, "plain": {"num_gpus": 0.5}}), has_gpu=True).plain
    assert plain is not None
    assert plain.num_gpus == 0.5


def test_ongoing_requests_follow_the_batch_size() -> None:
    plain = derive(parse({**ARGS, "plain": {"max_num_seqs": 9}}), has_gpu=False).plain
    assert plain is not None
    assert plain.max_ongoing_requests == 9


@pytest.mark.parametrize(
    ("draft", "device", "gpus"),
    [
        ({"kind": "ngram"}, "cpu", 0.0),
        ({"kind": "random"}, "cpu", 0.0),
        ({"kind": "model", "model": "d"}, "cuda", 1.0),
        ({"kind": "model", "model": "d", "num_gpus": 0.25}, "cuda", 0.25),
        ({"kind": "model", "model": "d", "device": "cpu"}, "cpu", 0.0),
    ],
)
def test_only_a_draft_model_takes_a_gpu(draft: dict[str, Any], device: str, gpus: float) -> None:
    spec = derive(parse({**ARGS, "draft": draft}), has_gpu=True).draft
    assert spec is not None
    assert (spec.kind, spec.device, spec.num_gpus) == (draft["kind"], device, gpus)
    assert (spec.target_model, spec.k_max) == ("smollm2", 5)
    assert spec.model == draft.get("model")


def test_routing_becomes_a_policy() -> None:
    routing = {
        "constrained_lane": "speculative",
        "classes": {"code": {"speculation": "on", "k": 2}},
        "rules": [{"workload_class": "code", "header": {"name": "x-team", "pattern": "^dev"}}],
    }
    spec = derive(parse({**ARGS, "routing": routing}), has_gpu=False).ingress
    assert spec.policy.constrained_lane is Lane.SPECULATIVE
    assert spec.policy.classes == {"code": ClassPolicy(speculation=Speculation.ON, k=2)}
    assert spec.class_rules == (ClassRule("code", header=("x-team", "^dev")),)


def test_one_lane_only() -> None:
    app = derive(parse({"model": "m", "plain": {}}), has_gpu=False)
    assert app.speculative is None
    assert app.draft is None


def test_specs_travel_between_processes() -> None:
    app = derive(parse(ARGS), has_gpu=False)
    assert pickle.loads(pickle.dumps(app)) == app
