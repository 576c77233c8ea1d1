"""The options of the load test: on Locust's command line, in its web UI and in the environment."""

from __future__ import annotations

import argparse
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from load_tests.traffic.tally import Slo
from load_tests.workloads import PROFILES, Limits, parse_mix

__all__ = ["DEFAULT_MIX", "SHAPES", "add_options", "limits_of", "numbers", "shown", "slo_of"]

SHAPES = ("staircase", "spike", "soak", "open", "closed")
DEFAULT_MIX = ",".join(f"{name}={profile.share:g}" for name, profile in PROFILES.items())


def numbers(text: str) -> list[float]:
    """Read `1,2,4`; ValueError unless all are greater than 0."""
    values = [float(part) for part in text.split(",")]
    if not all(0 < value < float("inf") for value in values):
        raise ValueError(f"{text}: numbers greater than 0, separated by commas")
    return values


def _users(text: str) -> list[float]:
    if any(value != int(value) for value in numbers(text)):
        raise ValueError(f"{text}: whole numbers of users")
    return numbers(text)


def _checked(read: Callable[[str], object]) -> Callable[[str], str]:
    """Return a type that checks and keeps the text: what the web UI hands back is text, too."""

    def check(text: str) -> str:
        try:
            read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return text

    return check


def _positive(text: str) -> float:
    """Return one number greater than 0; what the web UI hands back is made a float there."""
    try:
        (value,) = numbers(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: a number greater than 0") from None
    return value


def add_options(parser: Any) -> None:
    """Add them to Locust's parser; each has an environment variable, RAYSPEC_LOAD_ and its name."""

    def add(name: str, **how: Any) -> None:
        variable = "RAYSPEC_LOAD_" + name.removeprefix("--").replace("-", "_").upper()
        parser.add_argument(name, env_var=variable, **how)

    def checked(text: str) -> object:
        return parse_mix(text, PROFILES)

    add(
        "--shape",
        choices=SHAPES,
        default="staircase",
        help="staircase: --steps one after another; spike: -u users, --peak users, -u users; soak: "
        "-u users until -t, reported per --step-seconds; open: requests arrive at --rates, however "
        "long answers take; closed: -u users until -t",
    )
    add("--steps", type=_checked(_users), default="1,2,4,8,16,32,64", help="users of the staircase")
    add("--rates", type=_checked(numbers), default="1,2,4,8", help="requests/s of open, in steps")
    add("--step-seconds", type=_positive, default=30.0, help="how long a step lasts")
    add("--warm-up", type=float, default=0.0, help="seconds of load before, reported apart")
    add("--peak", type=int, default=32, help="users of a spike")
    add("--mix", type=_checked(checked), default=DEFAULT_MIX, help="shares of the sessions")
    add(
        "--speculation",
        choices=("auto", "on", "off"),
        default="auto",
        help="what every request asks for: auto leaves it to the router",
    )
    add("--name-classes", choices=("no", "yes"), default="no", help="tell the class, or not")
    add("--temperature", type=float, default=0.0, help="0: greedy, and texts are compared")
    add("--seed", type=int, default=0, help="of prompts and of who asks what")
    add("--sessions", type=int, default=64, help="different sessions per class; then they recur")
    add("--prompt-scale", type=_positive, default=1.0, help="factor on all prompt lengths")
    add("--output-scale", type=_positive, default=1.0, help="factor on all answer lengths")
    add("--think", type=float, default=0.0, help="mean seconds between an answer and the next turn")
    add(
        "--slo-ttft", type=float, default=0.0, help="ms to the first token of a good answer; 0: any"
    )
    add("--slo-tpot", type=float, default=0.0, help="ms per token of a good answer; 0: any")
    add("--result", default="", help="file for the JSON that load_tests/report.py reads")
    add("--label", default="", help="name of the run in reports")
    add("--api-key", default="", is_secret=True, help="sent as bearer token")


def limits_of(options: Namespace, context: int | None) -> Limits:
    """Return the limits of the workloads."""
    return Limits(options.prompt_scale, options.output_scale, context)


def slo_of(options: Namespace) -> Slo:
    """Return what a good answer is."""
    return Slo(options.slo_ttft, options.slo_tpot)


def shown(options: Namespace) -> dict[str, Any]:
    """Return the options that a result names."""
    names = (
        "shape steps rates step_seconds warm_up peak mix speculation name_classes temperature seed "
        "sessions prompt_scale output_scale think"
    )
    return {name: getattr(options, name) for name in names.split()}
