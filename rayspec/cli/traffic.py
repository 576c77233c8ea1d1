"""Options about traffic, shared by `rayspec simulate` and `rayspec plan`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rayspec.planning.calibration import ClassProfile
    from rayspec.planning.traces import Trace

__all__ = [
    "Acceptances",
    "ArrivalCv",
    "Class",
    "LengthCv",
    "Mix",
    "OutputTokens",
    "PromptTokens",
    "Rate",
    "Requests",
    "Seed",
    "SloTpot",
    "SloTtft",
    "Think",
    "TraceFile",
    "Traffic",
    "Users",
]

_PANEL = "Traffic"
TraceFile = Annotated[
    Path | None,
    typer.Option(
        "--trace",
        help="Recorded traffic: JSONL or CSV with arrival_s, prompt_tokens, output_tokens and "
        "workload_class, or CSV as of Azure's LLM inference traces or BurstGPT.",
        rich_help_panel=_PANEL,
    ),
]
Rate = Annotated[
    float | None,
    typer.Option(
        help="Requests per second; stretches a --trace in time.", min=0.0, rich_help_panel=_PANEL
    ),
]
Users = Annotated[
    int | None,
    typer.Option(
        help="Instead of a rate: so many users who each wait for their answer.",
        min=1,
        rich_help_panel=_PANEL,
    ),
]
Think = Annotated[
    float,
    typer.Option(
        help="Seconds a user takes between an answer and the next request.",
        min=0.0,
        rich_help_panel=_PANEL,
    ),
]
Requests = Annotated[
    int, typer.Option(help="How many requests, at most.", min=1, rich_help_panel=_PANEL)
]
Mix = Annotated[
    str,
    typer.Option(
        help="Shares of the classes, as code=0.3,chat=0.7; all of the calibration equally if "
        "not given.",
        rich_help_panel=_PANEL,
    ),
]
Class = Annotated[
    str | None,
    typer.Option(
        "--class", help="Class of the --trace requests that name none.", rich_help_panel=_PANEL
    ),
]
ArrivalCv = Annotated[
    float,
    typer.Option(
        help="How bursty arrivals are: 1 is Poisson, 0 a clock, 3 bursts (gamma distributed gaps).",
        min=0.0,
        rich_help_panel=_PANEL,
    ),
]
LengthCv = Annotated[
    float,
    typer.Option(
        help="How lengths vary: 0 not at all, 1 exponentially (gamma distributed).",
        min=0.0,
        rich_help_panel=_PANEL,
    ),
]
PromptTokens = Annotated[
    float | None,
    typer.Option(
        help="Mean prompt of every class instead of the calibrated one.",
        min=1.0,
        rich_help_panel=_PANEL,
    ),
]
OutputTokens = Annotated[
    float | None,
    typer.Option(
        help="Mean answer of every class instead of the calibrated one.",
        min=1.0,
        rich_help_panel=_PANEL,
    ),
]
Acceptances = Annotated[
    list[str] | None,
    typer.Option(
        "--acceptance",
        help="CLASS=VALUE: what if drafts of a class were accepted so often, at every position. "
        "May be repeated; also adds a class.",
        rich_help_panel=_PANEL,
    ),
]
Seed = Annotated[int, typer.Option(help="Same seed, same result.", rich_help_panel=_PANEL)]
SloTtft = Annotated[
    float | None,
    typer.Option(help="Limit for the time to the first token, in ms.", min=0.0),
]
SloTpot = Annotated[
    float | None, typer.Option(help="Limit for the time per further token, in ms.", min=0.0)
]


@dataclass(frozen=True, slots=True)
class Traffic:
    """The options as given."""

    trace: Path | None
    rate: float | None
    users: int | None
    think: float
    requests: int
    mix: str
    class_: str | None
    arrival_cv: float
    length_cv: float
    prompt_tokens: float | None
    output_tokens: float | None
    acceptance: Sequence[str]
    seed: int

    def profiles(self, known: dict[str, ClassProfile]) -> dict[str, ClassProfile]:
        """Return the classes of a calibration with what the options say differently."""
        from rayspec.errors import ConfigError
        from rayspec.planning.calibration import ClassProfile

        found = dict(known)
        for text in self.acceptance:
            name, _, value = text.partition("=")
            try:
                share = float(value)
            except ValueError:
                share = -1.0
            if not name or not 0 <= share <= 1:
                raise ConfigError("acceptance", text, "is not CLASS=VALUE with a value of 0 to 1")
            base = found.get(name, ClassProfile(acceptance=[]))
            found[name] = base.model_copy(update={"acceptance": [share]})
        lengths = {"prompt_tokens": self.prompt_tokens, "output_tokens": self.output_tokens}
        given = {key: value for key, value in lengths.items() if value is not None}
        return {name: profile.model_copy(update=given) for name, profile in found.items()}

    def make(self, profiles: dict[str, ClassProfile], *, default_users: int) -> Trace:
        """Return the requests; `default_users` send them where neither rate nor users are given."""
        from rayspec.errors import ConfigError
        from rayspec.planning.trace_files import read_trace
        from rayspec.planning.traces import ClassMix, closed_loop, open_loop, parse_mix

        if self.rate is not None and self.users is not None:
            raise ConfigError("users", self.users, "a rate is given too; choose one of the two")
        if self.rate == 0:
            raise ConfigError("rate", self.rate, "is not positive")
        if self.trace is not None:
            trace = read_trace(self.trace, self.class_, self.requests)
            if self.users is not None:
                return trace.with_users(self.users, self.think)
            return trace if self.rate is None else trace.at_rate(self.rate)
        shares = parse_mix(self.mix or self.class_ or "", list(profiles))
        unknown = [name for name in shares if name not in profiles]
        if unknown or not profiles:
            raise ConfigError(
                "mix",
                self.mix,
                f"{', '.join(unknown) or 'no class'} is not in the calibration, which has "
                f"{', '.join(profiles) or 'none'}; add one with --acceptance CLASS=VALUE",
            )
        mix = ClassMix(shares, profiles, self.length_cv)
        if self.rate is not None:
            return open_loop(mix, self.requests, self.rate, self.arrival_cv, self.seed)
        users = self.users or default_users
        return closed_loop(mix, self.requests, users, self.think, self.seed)
