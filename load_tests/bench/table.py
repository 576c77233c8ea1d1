"""The printed table of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["render"]

COLUMNS = (
    ("batch", "b", "{:d}"),
    ("system", "system", "{}"),
    ("draft_model", "draft", "{}"),
    ("k", "K", "{:d}"),
    ("ms_per_token", "ms/token", "{:.2f}"),
    ("tpot_ms", "TPOT", "{:.2f}"),
    ("tokens_per_s_request", "tok/s/req", "{:.1f}"),
    ("tokens_per_s", "tok/s", "{:.0f}"),
    ("tokens_per_s_gpu", "per GPU", "{:.0f}"),
    ("tokens_per_step", "tok/step", "{:.2f}"),
    ("step_ms", "step ms", "{:.2f}"),
    ("speedup", "speedup", "{:.2f}"),
    ("eta", "η", "{:.2f}"),
    ("round_us", "round µs", "{:.0f}"),
    ("floor_us", "floor µs", "{:.0f}"),
    ("wait_us", "wait µs", "{:.0f}"),
    ("misses", "misses", "{:.0f}"),
    ("skipped", "skipped", "{:.0f}"),
    ("coverage", "drafted", "{:.0%}"),
    ("rounds", "n", "{:d}"),
    ("spread", "spread", "{:.0%}"),
)
LOSS = (
    ("batch", "b", "{:d}"),
    ("draft_model", "draft", "{}"),
    ("k", "K", "{:d}"),
    ("step", "step", "{:.0f}"),
    ("plain", "plain", "{:.0f}"),
    ("verify", "verify", "{:.0f}"),
    ("draft", "round", "{:.0f}"),
    ("link", "link", "{:.0f}"),
    ("rest", "rest", "{:.0f}"),
    ("per_token", "lost/token", "{:.0f}"),
)
LEGEND = """\
ms/token: of one request while all b decode; TPOT: median over requests from first to last token.
speedup: plain's ms/token ÷ the system's; η: speedup ÷ tokens per step. per GPU counts the draft's.
round: one round of K drafts by the draft's clock; floor: K times its weights ÷ copy bandwidth.
wait: what a step waits for its drafts. misses, skipped: steps that waited the whole deadline, and
steps that did not wait after one. drafted: places with a draft; with synthetic acceptance a filler
is accepted as well, so less than 100 % means that the row looks faster than it is.
n: rounds; spread: (slowest − quickest) ÷ median. K is the system's quickest of those measured."""
LOSS_LEGEND = """\
Where a step's time goes, µs; step = plain + verify + round + link + rest. plain: plain's step.
verify: what the same engine's step with random drafts takes more, without its wait for them.
round: the draft's, by its own clock. link: what the step waited for its drafts, by the target
GPU's clock, less the round. rest: what the draft costs the target without making it wait (near 0
unless they share a GPU). lost/token: (step − plain) ÷ tokens per step."""


def render(report: Mapping[str, Any]) -> str:
    """Return the report as text: title, remarks, a table for each acceptance and temperature."""
    lines = [report["title"], *report["remarks"], ""]
    for name, failure in report["failures"].items():
        lines.append(f"FAILED {name}: {failure}")
    for title, rows in _sections(report["best"]):
        lines += [title, *_table(map(_flat, rows), COLUMNS), ""]
    if report["best"]:
        lines += [LEGEND, ""]
    for title, rows in _sections(report["losses"]):
        lines += [f"{title}: one step of rayspec", *_table(rows, LOSS), ""]
    if report["losses"]:
        lines.append(LOSS_LEGEND)
    return "\n".join(lines).rstrip() + "\n"


def _sections(
    rows: Sequence[Mapping[str, Any]],
) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """Group rows by acceptance and temperature; plain decoding is shown in every acceptance."""
    acceptances = sorted({row["acceptance"] for row in rows if row.get("system") != "plain"} or {0})
    temperatures = sorted({row["temperature"] for row in rows})
    sections = []
    for acceptance in acceptances:
        for temperature in temperatures:
            shown = [
                row
                for row in rows
                if row["temperature"] == temperature
                and (row["acceptance"] == acceptance or row.get("system") == "plain")
            ]
            kind = f"{acceptance:g} tokens a step" if acceptance else "acceptance as it comes"
            if shown:
                shown.sort(key=lambda row: row["batch"])
                sections.append((f"{kind}, temperature {temperature:g}", shown))
    return sections


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    link, draft = row.get("link", {}), row.get("draft", {})
    return {
        **row,
        "wait_us": link.get("wait_us"),
        "misses": link.get("misses"),
        "skipped": link.get("skipped"),
        "coverage": link.get("coverage"),
        "round_us": draft.get("round_us"),
        "floor_us": draft.get("floor_us"),
    }


def _table(rows: Iterable[Mapping[str, Any]], columns: Sequence[tuple[str, str, str]]) -> list[str]:
    cells = [[title for _, title, _ in columns]]
    for row in rows:
        cells.append(
            ["-" if row.get(name) is None else form.format(row[name]) for name, _, form in columns]
        )
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return [
        "  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True))
        for line in cells
    ]
