"""Whether to enable speculation for a class, in one sentence, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from rayspec.planning.calibration import Calibration
from rayspec.planning.goodput import ClassResult, Slo
from rayspec.planning.scenarios import ALWAYS, NONE, ROUTED, Outcome
from rayspec.routing.cost_model import breakeven_acceptance, expected_tokens
from rayspec.routing.types import Lane

__all__ = ["Verdict", "judge"]

Advice = Literal["enable", "route", "disable"]
_MARGIN = 0.03
"""A gain below this share is no reason for a second lane: simulation is not more exact."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Advice on one class."""

    workload_class: str
    advice: Advice
    sentence: str


def judge(
    name: str,
    outcomes: Mapping[str, Outcome],
    calibration: Calibration,
    slo: Slo,
    context: float,
) -> Verdict | None:
    """Compare the class without speculation, always on, and routed; None without the first.

    By attainment where limits are given and it differs, else by the mean latency.
    """
    if NONE not in outcomes:
        return None
    none = outcomes[NONE].results[name]
    gains = {
        key: _gain(outcomes[key].results[name], none, slo)
        for key in (ALWAYS, ROUTED)
        if key in outcomes
    }
    routed = gains[ROUTED] >= _MARGIN
    always = gains.get(ALWAYS, -1.0) >= _MARGIN
    # Where the router leaves a class plain, what it gains comes from others' drafts.
    share = outcomes[ROUTED].results[name].speculative_share
    if routed and share < 0.05:
        text = (
            f"leave off: rayspec sends it to the plain lane, {_times(outcomes, ROUTED, name, slo)}"
        )
        return _verdict(name, "disable", text, outcomes, ALWAYS, calibration, context)
    if always and gains[ALWAYS] >= gains[ROUTED] - _MARGIN:
        text = f"enable: {_times(outcomes, ALWAYS, name, slo)}"
        return _verdict(name, "enable", text, outcomes, ALWAYS, calibration, context)
    if routed:
        text = (
            f"enable with routing ({share:.0%} of its requests speculate): "
            f"{_times(outcomes, ROUTED, name, slo)}"
        )
        return _verdict(name, "route", text, outcomes, ROUTED, calibration, context)
    best = max(gains, key=lambda key: gains[key])
    text = f"do not enable on this hardware: {_times(outcomes, best, name, slo)}"
    # A class that hardly speculates has no K to speak of: say what always on would mean.
    shown = best if share >= 0.05 else ALWAYS
    return _verdict(name, "disable", text, outcomes, shown, calibration, context)


def _verdict(
    name: str,
    advice: Advice,
    text: str,
    outcomes: Mapping[str, Outcome],
    key: str,
    calibration: Calibration,
    context: float,
) -> Verdict:
    because = _because(name, outcomes, key, calibration, context)
    return Verdict(name, advice, f"{name}: {text}; {because}.")


def _gain(result: ClassResult, none: ClassResult, slo: Slo) -> float:
    if slo.given and abs(result.attainment - none.attainment) > 0.005:
        return result.attainment - none.attainment
    return 1 - result.mean_total_s / none.mean_total_s


def _times(outcomes: Mapping[str, Outcome], key: str, name: str, slo: Slo) -> str:
    result, none = outcomes[key].results[name], outcomes[NONE].results[name]
    change = result.total.p50 / none.total.p50 - 1
    text = (
        f"median answer {result.total.p50:.3g} s with {key} instead of {none.total.p50:.3g} s "
        f"without ({change:+.0%})"
    )
    if slo.given:
        text += f", {result.attainment:.1%} instead of {none.attainment:.1%} within the limits"
        if max(result.attainment, none.attainment) < 0.5:
            text += " (too much traffic for this hardware either way)"
    return text


def _because(
    name: str,
    outcomes: Mapping[str, Outcome],
    key: str,
    calibration: Calibration,
    context: float,
) -> str:
    """Say what a verification costs and yields at the batch that the lane really had."""
    outcome, costs = outcomes[key if key in outcomes else ROUTED], calibration.costs()
    if Lane.SPECULATIVE not in outcome.scenario.replicas or Lane.PLAIN not in costs:
        return "there is no other lane to compare"
    k = max(round(outcome.results[name].mean_k), 1)
    batch = max(outcome.batch[Lane.SPECULATIVE], 1.0)
    profile = calibration.classes[name]
    acceptance = profile.acceptance
    verify = costs[Lane.SPECULATIVE].steps.seconds(batch, k * profile.coverage, context)
    plain = costs[Lane.PLAIN].steps.seconds(batch, 0, context)
    needed = breakeven_acceptance(verify, plain, k)
    pays = f"it pays from {needed:.2f} on" if needed is not None else "it never pays there"
    first = acceptance[0] if acceptance else 0.0
    return (
        f"a speculative engine then decodes {batch:.3g} sequences at a time, where a step with {k} "
        f"draft{'s' if k > 1 else ''} costs {verify / plain:.2f} plain steps and yields "
        f"{expected_tokens(acceptance, k):.2f} tokens (acceptance {first:.2f}; {pays})"
    )
