"""From the configuration to what each deployment is told."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from rayspec.config import OwnDraftSpec, SpeculationSpec, derive, parse
from rayspec.errors import ConfigError
from rayspec.ingress.classify import ClassRule
from rayspec.ingress.keys import ApiKey
from rayspec.routing.policy import ClassPolicy
from rayspec.routing.traffic import Lengths
from rayspec.routing.trial import TrialSpec
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


@pytest.mark.parametrize(
    ("changed", "has_gpu", "shared"),
    [
        ({}, False, True),
        ({}, True, False),
        ({"plain": None}, False, False),
        ({"plain": {"num_gpus": 0.4}, "speculative": {"num_gpus": 0.4}}, True, True),
        ({"plain": {"num_gpus": 0.6}, "speculative": {"num_gpus": 0.6}}, True, False),
    ],
)
def test_the_router_knows_whether_lanes_share_hardware(
    changed: dict[str, Any], has_gpu: bool, shared: bool
) -> None:
    app = derive(parse({**ARGS, **changed}), has_gpu=has_gpu)
    assert app.ingress.policy.shared_hardware is shared


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
    assert (spec.target_model, spec.k_max, spec.k_tiers) == ("smollm2", 5, (0, 1, 3, 5))
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


@pytest.mark.parametrize(
    ("draft", "own"),
    [
        (
            {"method": "ngram", "ngram_max": 3},
            OwnDraftSpec("ngram", None, {"prompt_lookup_min": 2, "prompt_lookup_max": 3}),
        ),
        ({"method": "mtp"}, OwnDraftSpec("mtp")),
        (
            {"method": "eagle3", "model": "h", "args": {"draft_tensor_parallel_size": 1}},
            OwnDraftSpec("eagle3", "h", {"draft_tensor_parallel_size": 1}),
        ),
    ],
)
def test_an_engine_that_drafts_itself(draft: dict[str, Any], own: OwnDraftSpec) -> None:
    args = {**ARGS, "draft": None, "speculative": {"draft": draft, "k_tiers": [2]}}
    app = derive(parse(args), has_gpu=True)
    assert app.draft is None
    assert app.speculative is not None
    assert app.speculative.speculation is not None
    assert app.speculative.speculation.own == own
    assert app.ingress.policy.k_tiers == (0, 2, 4)
    # vLLM chooses the runner that has the method.
    assert app.speculative.env == {"VLLM_USE_FLASHINFER_SAMPLER": "0"}


def test_trying_a_new_draft_changes_neither_engines_nor_draft() -> None:
    draft = {"kind": "model", "model": "old", "data_parallel_size": 2}
    args = {**ARGS, "device": "cuda", "draft": draft}
    before = derive(parse(args), has_gpu=True)
    candidate = {"model": "new", "share": 0.2}
    config = parse({**args, "draft": {**draft, "candidate": candidate}})
    after = derive(config, has_gpu=True)
    assert (after.speculative, after.plain, after.draft) == (
        before.speculative,
        before.plain,
        before.draft,
    )
    assert before.candidate is None
    assert before.ingress.trial is None
    assert after.ingress.trial == TrialSpec(share=0.2)
    assert after.candidate is not None
    assert (after.candidate.model, after.candidate.model_field) == ("new", "draft.candidate.model")
    # One draft for all sequences.
    assert (after.candidate.replicas, after.candidate.slots) == (1, 64)
    assert config.models() == ["smollm2", "old", "new"]


def test_one_lane_only() -> None:
    app = derive(parse({"model": "m", "plain": {}}), has_gpu=False)
    assert app.speculative is None
    assert app.draft is None


def test_specs_travel_between_processes() -> None:
    app = derive(parse(ARGS), has_gpu=False)
    assert pickle.loads(pickle.dumps(app)) == app


MODEL: dict[str, Any] = {"kind": "model", "model": "d"}


@pytest.mark.parametrize(
    ("draft", "has_gpu", "engine", "transport"),
    [
        (MODEL, True, "vllm", "nccl"),
        (MODEL, False, "transformers", "gloo"),
        (MODEL | {"engine": "transformers"}, True, "transformers", "gloo"),
        (MODEL | {"device": "cpu"}, True, "transformers", "gloo"),
        (MODEL | {"device": "cuda"}, False, "vllm", "gloo"),
    ],
)
def test_the_link_follows_from_where_both_ends_are(
    draft: dict[str, Any], has_gpu: bool, engine: str, transport: str
) -> None:
    lane = {"num_speculative_tokens": 4}
    app = derive(parse({**ARGS, "speculative": lane, "draft": draft}), has_gpu=has_gpu)
    assert app.draft is not None
    assert app.speculative is not None
    assert app.speculative.speculation is not None
    assert (app.draft.engine, app.speculative.speculation.transport) == (engine, transport)
    expected = 0.02 if transport == "nccl" else 0.25
    assert app.speculative.speculation.draft_deadline_s == expected


def test_prompt_lookup_keeps_the_link_on_the_host() -> None:
    app = derive(parse(ARGS), has_gpu=True)
    assert app.speculative is not None
    assert app.speculative.speculation == SpeculationSpec(5, (0, 1, 3, 5), 0.04, transport="gloo")


def test_what_is_said_about_a_draft_model_reaches_both_ends() -> None:
    draft = MODEL | {
        "quantization": "fp8",
        "vocab_trim": "ids.json",
        "load_format": "dummy",
        "fused": False,
        "kv_gib": 1.5,
        "sampling": "sparse",
        "top_m": 16,
        "data_parallel_size": 3,
    }
    app = derive(parse({**ARGS, "draft": draft}), has_gpu=True)
    assert app.speculative is not None
    speculation = app.speculative.speculation
    assert speculation is not None
    assert (speculation.q_mode, speculation.q_top, speculation.draft_shards) == ("sparse", 16, 3)
    assert app.draft is not None
    assert {name: getattr(app.draft, name) for name in draft if hasattr(app.draft, name)} == {
        name: value for name, value in draft.items() if name != "data_parallel_size"
    }
    # Every draft serves its share of the 64 sequences of an engine.
    assert (app.draft.replicas, app.draft.slots) == (3, 22)
    assert (app.draft.targets, app.draft.target_slots) == (1, 64)


def test_greedy_drafts_tell_no_distribution() -> None:
    app = derive(parse({**ARGS, "draft": MODEL | {"fused": True}}), has_gpu=True)
    assert app.speculative is not None
    assert app.speculative.speculation is not None
    assert (app.speculative.speculation.q_mode, app.speculative.speculation.q_top) == ("none", 0)
    assert app.draft is not None
    assert app.draft.fused is True


@pytest.mark.parametrize(
    ("target", "draft", "shared"),
    [(0.5, 0.4, True), (0.5, 0.5, True), (0.7, 0.4, False), (1, 0.4, False), (0.5, None, False)],
)
def test_two_processes_on_one_gpu_look_like_two_hosts(
    target: float, draft: float | None, shared: bool
) -> None:
    lane = {"num_gpus": target, "env": {"NCCL_DEBUG": "WARN", "NCCL_SOCKET_IFNAME": "eth0"}}
    args = {**ARGS, "speculative": lane, "draft": MODEL | {"num_gpus": draft}}
    app = derive(parse(args), has_gpu=True)
    assert app.speculative is not None
    assert app.draft is not None
    ids = [spec.env.get("NCCL_HOSTID") for spec in (app.speculative, app.draft)]
    assert (len(set(ids)) == 2) == shared
    assert (None in ids) != shared
    # What the configuration says comes first.
    assert app.speculative.env["NCCL_SOCKET_IFNAME"] == "eth0"
    assert app.speculative.env["NCCL_DEBUG"] == "WARN"


def test_engines_on_gpus_get_the_runner_and_the_sampler_that_always_start() -> None:
    app = derive(parse({**ARGS, "plain": {"env": {"NAME": "value"}}}), has_gpu=True)
    assert app.speculative is not None
    assert app.speculative.env == {
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
        "VLLM_USE_V2_MODEL_RUNNER": "1",
    }
    assert app.plain is not None
    assert app.plain.env == {"VLLM_USE_FLASHINFER_SAMPLER": "0", "NAME": "value"}


def test_engines_on_the_cpu_keep_the_environment_as_configured() -> None:
    app = derive(parse(ARGS), has_gpu=False)
    assert app.speculative is not None
    assert app.plain is not None
    assert not app.speculative.env
    assert not app.plain.env


def calibration(path: Path, **changes: Any) -> str:
    steps = [{"batch": 1, "k": 0, "context": 100, "seconds": 0.01}]
    lane = {"steps": steps, "prefill": {"base_s": 0.0, "per_token_s": 1e-4}, "max_num_seqs": 64}
    content: dict[str, Any] = {
        "created": "2026-11-26T12:00:00",
        "model": "smollm2",
        "k_tiers": [0, 5],
        "lanes": {"speculative": {**lane, "contention": 1.5, "overhead_s": 0.02}, "plain": lane},
        "classes": {"code": {"acceptance": [0.8, 0.7], "prompt_tokens": 900}},
    }
    file = path / "calibration.json"
    file.write_text(json.dumps(content | changes))
    return str(file)


def routed(path: str) -> dict[str, Any]:
    return {**ARGS, "routing": {"calibration": path}}


def test_a_calibration_reaches_the_router(tmp_path: Path) -> None:
    app = derive(parse(routed(calibration(tmp_path))), has_gpu=False)
    measured = pickle.loads(pickle.dumps(app)).ingress.policy.measured

    assert measured.costs[Lane.PLAIN].steps.seconds(1, 0, 100) == pytest.approx(0.01)
    assert measured.contention == {Lane.SPECULATIVE: 1.5, Lane.PLAIN: 1.0}
    assert measured.overhead_s[Lane.SPECULATIVE] == 0.02
    assert measured.classes["code"].acceptance == (0.8, 0.7)
    assert measured.classes["code"].lengths == Lengths(900, 128)
    assert app.ingress.policy.k_tiers == (0, 1, 3, 5)


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"model": "other"}, "is of other; calibrate smollm2"),
        ({"format": 9}, "measure again"),
        ({"k_tiers": []}, "k_tiers"),
    ],
)
def test_a_calibration_that_does_not_fit_is_one_line(
    tmp_path: Path, changes: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(ConfigError, match=remedy) as error:
        derive(parse(routed(calibration(tmp_path, **changes))), has_gpu=False)

    assert "\n" not in str(error.value)


def test_a_calibration_without_one_of_the_lanes_is_refused(tmp_path: Path) -> None:
    content = json.loads(Path(calibration(tmp_path)).read_text())
    del content["lanes"]["plain"]
    with pytest.raises(ConfigError, match="lacks the plain lane"):
        derive(parse(routed(calibration(tmp_path, lanes=content["lanes"]))), has_gpu=False)


def test_a_calibration_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        derive(parse(routed("/nowhere/calibration.json")), has_gpu=False)


def test_without_a_speculative_lane_there_is_nothing_to_choose() -> None:
    policy = derive(parse({"model": "m", "plain": {}}), has_gpu=False).ingress.policy

    assert (policy.k_tiers, policy.measured) == ((), None)
    assert policy.max_speculative_concurrency is None


def test_replicas_drain_as_long_as_a_request_may_last() -> None:
    app = derive(parse(ARGS | {"ingress": {"request_timeout_s": 90}}), has_gpu=False)
    assert app.plain is not None
    assert app.ingress.drain_timeout_s == app.plain.drain_timeout_s > 90
    app = derive(parse(ARGS | {"ingress": {"drain_timeout_s": 7}}), has_gpu=False)
    assert app.ingress.drain_timeout_s == 7


@pytest.mark.parametrize(("has_gpu", "surge"), [(False, 100), (True, 0)])
def test_engines_start_beside_the_old_ones_where_nothing_is_in_short_supply(
    has_gpu: bool, surge: int
) -> None:
    app = derive(parse(ARGS | {"plain": {"max_surge_percent": 50}}), has_gpu=has_gpu)
    assert app.plain is not None
    assert app.speculative is not None
    assert (app.speculative.max_surge_percent, app.plain.max_surge_percent) == (surge, 50)


def test_autoscaling_of_the_plain_lane() -> None:
    plain = {"max_num_seqs": 40, "autoscaling": {"min_replicas": 2, "max_replicas": 5}}
    app = derive(parse(ARGS | {"plain": plain}), has_gpu=False)
    assert app.plain is not None
    assert app.plain.autoscaling is not None
    assert app.plain.autoscaling.target_sequences == 30
    assert app.plain.num_replicas == 5


def test_keys_and_origins_reach_the_ingress() -> None:
    key = {"name": "one", "sha256": "AB" * 32, "requests_per_minute": 60}
    cors = {"allow_origins": ["https://chat.example.com"]}
    spec = derive(
        parse(ARGS | {"ingress": {"api_keys": [key], "cors": cors}}), has_gpu=False
    ).ingress
    assert spec.api_keys == (ApiKey("one", b"\xab" * 32, 60),)
    assert spec.cors is not None
    assert spec.cors.allow_origins == ("https://chat.example.com",)
