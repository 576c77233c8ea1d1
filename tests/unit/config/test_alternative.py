"""The lane that drafts in another way than the speculative one: what it accepts, what follows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rayspec.config import derive, parse
from rayspec.errors import ConfigError
from rayspec.planning.calibrate_limits import limits_of
from rayspec.planning.calibration import Calibration, LaneProfile, PrefillFit, Step
from rayspec.routing import Lane
from tests.unit.config.test_schema import BOTH, with_value

NGRAM: dict[str, Any] = {"draft": {"method": "ngram"}}
THREE: dict[str, Any] = {**BOTH, "alternative": {**NGRAM, "num_speculative_tokens": 8}}
OWN: dict[str, Any] = {
    "model": "smollm2",
    "speculative": {"draft": {"method": "eagle3", "model": "head"}},
    "alternative": NGRAM,
}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("alternative", {}, "alternative.draft = (missing): set it; it has no default"),
        (
            "alternative.draft",
            {"method": "lookup"},
            "alternative.draft.method = 'lookup': set it to one of ngram, suffix, draft_model",
        ),
        (
            "alternative.draft",
            {"kind": "ngram"},
            "alternative.draft.method = (missing): set it to one of ngram",
        ),
        ("alternative.draft.ngram_mim", 2, "did you mean 'ngram_min'?"),
        ("alternative.draft.args", {"model": "m"}, "alternative.draft.args.model"),
        # what only drafts over a link know
        ("alternative.draft_deadline_ms", 5, "alternative.draft_deadline_ms = 5: unknown field"),
        ("alternative.fused_verification", False, "unknown field"),
        ("alternative.autoscaling", {"max_replicas": 2}, "unknown field"),
        ("alternative.k_tiers", [9], "alternative.k_tiers = [9]: 9 is not between 0 and"),
        ("alternative.engine_args", {"speculative_config": {}}, "use 'draft' at the top"),
        (
            "routing.classes",
            {"code": {"k": 9}},
            "routing.classes.code.k = 9: must not exceed alternative.num_speculative_tokens (8)",
        ),
        ("routing.constrained_lane", "other", "must be one of"),
    ],
)
def test_what_is_wrong_is_one_line(path: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(with_value(path, value, THREE))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_it_is_a_lane_beside_others() -> None:
    with pytest.raises(ConfigError, match="call it 'speculative', or add"):
        parse({"model": "smollm2", "alternative": NGRAM})
    with pytest.raises(ConfigError, match=r"alternative\.num_gpus"):
        parse(with_value("alternative.num_gpus", 1, THREE | {"device": "cpu"}))
    for beside in (THREE, OWN, {"model": "smollm2", "plain": {}, "alternative": NGRAM}):
        assert parse(beside).alternative is not None


def test_models_of_both_are_known() -> None:
    drafted = {"method": "draft_model", "model": "small"}
    config = parse(with_value("alternative", {"draft": drafted}, OWN))
    assert config.models() == ["smollm2", "head", "small"]
    assert config.draft_models() == ["small"]
    behind_a_link = parse(THREE | {"draft": {"kind": "model", "model": "linked"}})
    assert behind_a_link.draft_models() == ["linked"]


def test_what_follows() -> None:
    app = derive(parse(with_value("alternative.k_tiers", [2], THREE)), has_gpu=False)
    assert [target.lane for target in app.targets] == list(Lane)
    assert app.speculative is not None
    assert app.speculative.speculation is not None
    assert app.speculative.speculation.own is None
    assert app.alternative is not None
    assert app.alternative.speculation is not None
    assert app.alternative.speculation.own is not None
    assert app.alternative.speculation.own.method == "ngram"
    policy = app.ingress.policy
    assert (policy.tiers(Lane.SPECULATIVE), policy.tiers(Lane.ALTERNATIVE)) == ((0, 4), (0, 2, 8))
    assert policy.tiers(Lane.PLAIN) == ()
    assert policy.shared_hardware
    assert app.ingress.k_max == 8


def test_on_gpus() -> None:
    app = derive(parse(THREE), has_gpu=True)
    assert not app.ingress.policy.shared_hardware
    assert app.alternative is not None
    assert app.alternative.env == {"VLLM_USE_FLASHINFER_SAMPLER": "0"}
    halves = parse(
        with_value("plain.num_gpus", 0.5, with_value("alternative.num_gpus", 0.5, THREE))
    )
    assert derive(halves, has_gpu=True).ingress.policy.shared_hardware


def test_a_calibration_is_of_the_other_lanes(tmp_path: Path) -> None:
    lane = LaneProfile(
        steps=[Step(batch=1, k=0, context=100, seconds=0.01)],
        prefill=PrefillFit(base_s=0.01, per_token_s=0.001),
        max_num_seqs=8,
    )
    lanes = {Lane.SPECULATIVE: lane, Lane.PLAIN: lane}
    found = Calibration(created="2026-01-01", model="smollm2", k_tiers=[4], lanes=lanes)
    found.save(tmp_path / "calibration.json")
    routed = THREE | {"routing": {"calibration": str(tmp_path / "calibration.json")}}
    measured = derive(parse(routed), has_gpu=False).ingress.policy.measured
    assert measured is not None
    assert measured.costs.keys() == {Lane.SPECULATIVE, Lane.PLAIN}
    with pytest.raises(ValueError, match="leave this lane out to calibrate"):
        Calibration(
            created="2026-01-01", model="m", k_tiers=[4], lanes=lanes | {Lane.ALTERNATIVE: lane}
        )
    with pytest.raises(ConfigError, match="alternative = 'ngram': leave this lane out"):
        limits_of(parse(THREE), has_gpu=False)
