"""Routing: how full the lanes are, how well drafts are accepted, and where a request goes.

Everything here is pure or owns plain counters, with the clock injected: no Ray, no vLLM.
"""

from rayspec.routing.acceptance import AcceptanceTracker
from rayspec.routing.crossover import Crossover
from rayspec.routing.ledger import Ledger, Ticket
from rayspec.routing.policy import ClassPolicy, NoLane, PolicySpec, decide
from rayspec.routing.router import Router
from rayspec.routing.types import (
    K_ARG,
    AcceptanceEstimate,
    ClassHistory,
    Decision,
    EngineProfile,
    EngineSnapshot,
    Forecast,
    Lane,
    LaneView,
    Outcome,
    RequestView,
    Rule,
    Speculation,
)

__all__ = [
    "K_ARG",
    "AcceptanceEstimate",
    "AcceptanceTracker",
    "ClassHistory",
    "ClassPolicy",
    "Crossover",
    "Decision",
    "EngineProfile",
    "EngineSnapshot",
    "Forecast",
    "Lane",
    "LaneView",
    "Ledger",
    "NoLane",
    "Outcome",
    "PolicySpec",
    "RequestView",
    "Router",
    "Rule",
    "Speculation",
    "Ticket",
    "decide",
]
