"""How `rayspec top` looks: one document of `/ui/state` as tables for a terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

__all__ = ["fitting", "render", "trouble"]

_LANES = {"speculative": "blue", "alternative": "magenta", "plain": "yellow"}
_WINDOW = 6  # intervals: a minute
_BAR = 20
_MOST_CLASSES = 8
# Rows that everything but classes and decisions takes.
_FIXED_ROWS = 10
_MOST_LINES = 3

State = Mapping[str, Any]


def fitting(state: State, height: int) -> int:
    """Return how many decisions a terminal of `height` rows has room for."""
    shown = len(state["classes"][:_MOST_CLASSES]) + len(state["links"]) + _lines(state)
    return max(height - _FIXED_ROWS - shown - ("alternative" in state["lanes"]), 0)


def render(state: State, decisions: int) -> RenderableType:
    """Return all of it, with the newest `decisions`."""
    classes = state["classes"][:_MOST_CLASSES]
    return Group(
        _title(state),
        _lanes(state),
        _links(state),
        *_trial(state),
        Text(),
        _classes(state, classes),
        Text(),
        *_crossover(state),
        Text(),
        _decisions(state["decisions"][:decisions]),
    )


def trouble(problem: str, shown: RenderableType | None) -> RenderableType:
    """Return what was shown last under the reason why it is not renewed."""
    line = Text(problem, style="bold red")
    return line if shown is None else Group(line, shown)


def _title(state: State) -> Text:
    lanes = state["history"]["lanes"]
    drafted, accepted = (_total(state, name) for name in ("drafted", "accepted"))
    ended = {lane: sum(lanes[lane]["requests"][-_WINDOW - 1 : -1]) for lane in lanes}
    requests, minutes = sum(ended.values()), _minutes(state)
    drafted_for = requests - ended["plain"]
    tokens = sum(sum(lane["tokens"][-_WINDOW - 1 : -1]) for lane in lanes.values())
    said = [
        f"{requests / minutes:.1f} requests/min" if minutes else "no figures yet",
        f"{tokens / minutes / 60:.1f} tokens/s" if minutes else "",
        f"{_percent(drafted_for / requests)} {_drafting(state)}" if requests else "",
        f"{_percent(accepted / drafted)} accepted" if drafted else "",
    ]
    told = "   ".join(filter(None, said))
    return Text.assemble(("rayspec ", "bold"), f"{state['model']}   ", (told, "dim"))


def _lanes(state: State) -> Table:
    table = _table("lane", "", "load", "running", "waiting", "KV cache", "tokens/s", "engines")
    table.columns[1].justify = "left"
    for name, style in _LANES.items():
        lane = state["lanes"].get(name)
        if lane is None and name == "alternative":
            continue
        if lane is None:
            table.add_row(Text(name, style=style), Text("no such lane", style="dim"))
            continue
        most = max(lane["capacity"], lane["load"], 1)
        filled = round(_BAR * lane["load"] / most)
        tokens = state["history"]["lanes"][name]["tokens"][-_WINDOW - 1 : -1]
        minutes = _minutes(state)
        engines = Text(str(lane["replicas"]) if lane["replicas"] else "none reports")
        engines.stylize("" if lane["replicas"] else "bold red")
        table.add_row(
            Text(name, style=style),
            Text.assemble(("█" * filled, style), ("░" * (_BAR - filled), "dim")),
            f"{lane['load']} of {lane['capacity'] or '?'}",
            str(lane["running"]),
            str(max(lane["load"] - lane["running"], 0)),
            _percent(lane["kv_usage"]),
            f"{sum(tokens) / minutes / 60:.1f}" if minutes else "–",
            engines,
        )
    return table


def _links(state: State) -> Text:
    if not {"speculative", "alternative"} & set(state["lanes"]):
        return Text("draft: none, without a speculative lane", style="dim")
    if not state["links"]:
        told = f"draft: no engine of the {_drafting(state)} lane answers"
        return Text(told, style="bold red")
    lines = []
    for link in state["links"]:
        for shard in link["shards"]:
            figures, ready = shard["link"], shard["state"] == "ready"
            sent = figures.get("sent", 0)
            answered = figures.get("received", 0) / sent if sent else None
            why = figures.get("refused_reason") or figures.get("down_reason")
            told = (
                f"  wait {_duration(figures.get('rtt_ewma_us', 0) / 1e6)}"
                f", drafting {_duration(figures.get('draft_ewma_us', 0) / 1e6)}"
                f", {_percent(answered)} of {sent} steps answered in time"
                f", lost {figures.get('deaths', 0)}"
            )
            lines.append(
                Text.assemble(
                    "draft: ",
                    (shard["state"] or "unknown", "bold green" if ready else "bold red"),
                    f" {why}" if why and not ready else "",
                    (told, "dim"),
                )
            )
        if link.get("method"):
            lines.append(_own(link))
        elif not link["shards"]:
            lines.append(Text(f"draft: {link['disabled_reason'] or 'unknown'}", style="bold red"))
    return Text("\n").join(lines)


def _drafting(state: State) -> str:
    """Return how lanes that draft are called."""
    if "alternative" not in state["lanes"]:
        return "speculative"
    return "speculative or alternative" if "speculative" in state["lanes"] else "alternative"


def _trial(state: State) -> list[Text]:
    """Return how a new version of the draft stands, if one is tried."""
    if (trial := state.get("trial")) is None:
        return []
    found, seen = trial["tokens_per_step"], trial["requests"]
    gain = "" if found is None else f", {found['gain']:+.2f} tokens a step"
    bounds = "" if found is None else f" ({found['low']:+.2f} to {found['high']:+.2f})"
    told = f"  {seen['new']} requests beside {seen['old']} of the old one{gain}{bounds}"
    return [Text.assemble("new draft: ", (trial["state"].replace("_", " "), "bold"), (told, "dim"))]


def _own(link: State) -> Text:
    """Return what is told of an engine that drafts itself."""
    drafted, accepted = sum(link["drafted_per_pos"]), sum(link["accepted_per_pos"])
    told = f"  {_percent(accepted / drafted if drafted else None)} of {drafted} tokens accepted"
    return Text.assemble("draft: ", (link["method"], "bold green"), " in the engine", (told, "dim"))


def _classes(state: State, classes: Sequence[State]) -> RenderableType:
    if not classes:
        return Text("No request was seen in the last half hour.", style="dim")
    table = _table(
        "class", "requests", "accepted", "interval", "offered", "counts as", "breakeven", "pays"
    )
    several = {"speculative", "alternative"} <= set(state["lanes"])
    for each in classes:
        known, breakeven = each["predicted"], each["breakeven"]
        pays = known and breakeven is not None and each["expected"] >= breakeven
        measured = each["acceptance"] is not None
        table.add_row(
            f"{each['name']} {each['lane']}" if several else each["name"],
            str(sum(state["history"]["classes"][each["name"]]["requests"])),
            _percent(each["acceptance"]),
            f"{_percent(each['low'])}…{_percent(each['high'])}" if measured else "–",
            _percent(each["coverage"]) if measured else "–",
            _percent(each["expected"]) if known else "–",
            ("never" if breakeven is None else _percent(breakeven)) if known else "–",
            Text("yes", "green") if pays else Text("no" if known else "–", "yellow"),
        )
    return table


def _crossover(state: State) -> list[Text]:
    """Say for each class where tokens come sooner, and what they cost at the present load."""
    lines = []
    for each in state["crossover"][:_MOST_LINES]:
        parts: list[Any] = [("sooner per token, ", "dim"), (each["name"], "bold"), ": "]
        if not each["sooner"]:
            known = ", ".join(each["lanes"]) or "no"
            parts.append((f"step times are known of {known} lane only", "dim"))
        for at, change in enumerate(each["sooner"]):
            where = f" from {change['load']}" if at else ""
            parts += [" → " if at else "", (f"{change['lane']}{where}", _LANES[change["lane"]])]
        for name, line in each["lanes"].items():
            at = min(range(len(line["load"])), key=lambda n: abs(line["load"][n] - line["now"]))
            where = f"at {line['now']:g}" if line["now"] else "idle"
            parts.append((f"   {name} {where}: {_duration(line['tpot_s'][at])}", "dim"))
        lines.append(Text.assemble(*parts))
    return lines


def _decisions(decisions: Sequence[State]) -> RenderableType:
    if not decisions:
        return Text("No request was routed yet.", style="dim")
    table = _table("at", "class", "lane", "reason", "predicted", "took", "tokens", "accepted")
    for at in (1, 2, 3):
        table.columns[at].justify = "left"
    table.columns[3].overflow, table.columns[3].ratio = "ellipsis", 1
    for each in decisions:
        predicted = each["predicted_s"].get(each["lane"])
        took = {None: "running", False: "not here", True: _duration(each["seconds"])}
        drafted = each["drafted"]
        table.add_row(
            time.strftime("%H:%M:%S", time.localtime(each["at"])),
            each["workload_class"],
            Text(each["lane"], style=_LANES[each["lane"]]),
            each["reason"],
            _duration(predicted),
            took[each["finished"]],
            str(each["output_tokens"]) if each["finished"] else "",
            _percent(each["accepted"] / drafted) if drafted else "",
        )
    return table


def _table(*names: str) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False, expand=False)
    for at, name in enumerate(names):
        table.add_column(name, justify="right" if at else "left", no_wrap=True)
    return table


def _lines(state: State) -> int:
    return len(state["crossover"][:_MOST_LINES])


def _minutes(state: State) -> float:
    """Return over how many minutes the figures of the last minute are."""
    history = state["history"]
    return float(min(len(history["at"]) - 1, _WINDOW) * history["interval_s"] / 60)


def _total(state: State, name: str) -> int:
    return sum(sum(counts[name]) for counts in state["history"]["classes"].values())


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"
