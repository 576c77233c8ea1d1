"""Lanes that share hardware: all go where all are served best, and exploring minds everybody."""

from __future__ import annotations

from rayspec.routing.policy import PolicySpec
from rayspec.routing.sharing import Gathering
from rayspec.routing.types import ClassHistory, Decision, Forecast, Lane, RequestView, Speculation
from tests.support.one_draft import decide
from tests.support.policies import CHAT, GOOD, forecast, lanes

S, P = Lane.SPECULATIVE, Lane.PLAIN
SPEC = PolicySpec(exploration_share=0.0, k_tiers=(0, 2, 4))


def told(
    gathering: Gathering | None,
    predicted: Forecast,
    spec: PolicySpec = SPEC,
    view: RequestView = CHAT,
    turn: int = 0,
) -> Decision:
    return decide(view, lanes(), GOOD, spec, ClassHistory(turns=turn), predicted, gathering)


def test_all_go_where_all_are_served_best_even_if_one_is_slower_there() -> None:
    decision = told(Gathering(P, 63.0, 58.0), forecast(0.5, 1.0))

    assert decision.lane is P
    assert decision.reason == "together plain 63 > 58 tokens/s of all"
    assert told(Gathering(S, 1.0, 0.9), forecast(1.0, 0.5)).lane is S


def test_where_both_lanes_are_to_work_each_request_takes_its_quicker_one() -> None:
    for lane, predicted in ((S, forecast(0.5, 1.0)), (P, forecast(1.0, 0.5))):
        decision = told(Gathering(None, 63.0, 58.0), predicted)
        assert (decision.lane, decision.rule) == (lane, "faster")


def test_a_wish_goes_before_what_is_best_for_all() -> None:
    asks = RequestView("chat", Speculation.ON)
    assert told(Gathering(P, 63.0, 58.0), forecast(0.5, 1.0), view=asks).rule == "override"


def explored(predicted: Forecast, gathering: Gathering | None, turns: int = 4000) -> int:
    spec = PolicySpec(exploration_share=0.1, exploration_loss=0.25, k_tiers=(0, 2, 4))
    found = (told(gathering, predicted, spec, turn=turn) for turn in range(turns))
    return sum(decision.rule == "explore" for decision in found)


def test_what_exploring_costs_everybody_is_bounded_by_exploring_more_rarely() -> None:
    home = Gathering(S, 63.0, 58.0)
    cheap = forecast(1.0, 1.2)
    dear = Forecast(cheap.lanes, cheap.drafting, burden_s={P: 0.8, S: 0.0})

    assert explored(cheap, home) == 400
    assert explored(dear, home) == 100  # a loss of 100 %: a quarter of the share
    assert explored(dear, None) == 400  # on hardware of its own a request delays nobody there
