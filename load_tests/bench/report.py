"""From samples to results: medians over the rounds, ratios to plain decoding, lost time. Pure."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from load_tests.bench.settings import VERIFY_ONLY

__all__ = ["best_k", "losses", "results"]

Sample = Mapping[str, Any]
Key = tuple[Any, ...]

KEY = ("system", "draft_model", "k", "batch", "acceptance", "temperature")
MEASURED = (
    "ms_per_token",
    "tpot_ms",
    "step_ms",
    "step_p50_ms",
    "tokens_per_step",
)


def results(samples: Sequence[Sample], gpus: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return one row for each system, draft, K, batch, acceptance and temperature.

    `speedup` is plain's ms per token ÷ the system's, both medians over the rounds of the same
    group of engines where that group has plain in it; `eta` is the speedup ÷ mean tokens per step,
    which is plain's step time ÷ the system's: what remains of the gain that the tokens promise.
    """
    cells: dict[Key, list[Sample]] = defaultdict(list)
    for sample in samples:
        cells[_key(sample)].append(sample)
    plain = _plain(samples)
    rows = []
    for (system, draft, k, batch, acceptance, temperature), group in sorted(cells.items()):
        row: dict[str, Any] = {
            "system": system,
            "draft_model": draft,
            "k": k,
            "batch": batch,
            "acceptance": acceptance,
            "temperature": temperature,
            "rounds": len(group),
        }
        row |= {name: statistics.median(sample[name] for sample in group) for name in MEASURED}
        times = [sample["ms_per_token"] for sample in group]
        row["spread"] = (max(times) - min(times)) / row["ms_per_token"]
        row["tokens_per_s_request"] = 1e3 / row["ms_per_token"]
        row["tokens_per_s"] = batch * row["tokens_per_s_request"]
        row["tokens_per_s_gpu"] = row["tokens_per_s"] / gpus[system]
        row |= _ratios(row, group, plain)
        for part in ("link", "draft"):
            if (figures := _median_of([sample[part] for sample in group if part in sample])) != {}:
                row[part] = figures
        rows.append(row)
    return rows


def _key(sample: Sample) -> Key:
    return tuple(sample[name] for name in KEY)


def _plain(samples: Iterable[Sample]) -> Mapping[Key, list[float]]:
    """Return plain's times by (batch, temperature, group); group None has those of all groups."""
    times: dict[Key, list[float]] = defaultdict(list)
    for sample in samples:
        if sample["system"] == "plain":
            for group in (sample["group"], None):
                key = (sample["batch"], sample["temperature"], group)
                times[key].append(sample["ms_per_token"])
    return times


def _ratios(
    row: Mapping[str, Any], group: Sequence[Sample], plain: Mapping[Key, list[float]]
) -> dict[str, Any]:
    where = (row["batch"], row["temperature"])
    own = plain.get((*where, group[0]["group"]))
    times = own or plain.get((*where, None))
    if not times:
        return {"speedup": None, "eta": None, "interleaved": False}
    speedup = statistics.median(times) / row["ms_per_token"]
    return {
        "speedup": speedup,
        "eta": speedup / row["tokens_per_step"],
        "interleaved": own is not None,
    }


def _median_of(readings: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    names = {name for reading in readings for name in reading if _is_number(reading[name])}
    return {
        name: statistics.median(reading[name] for reading in readings if name in reading)
        for name in sorted(names)
    }


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def best_k(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the quickest row of each system and draft for each batch and kind of cell."""
    best: dict[Key, Mapping[str, Any]] = {}
    for row in rows:
        key = tuple(row[n] for n in ("acceptance", "temperature", "batch", "system", "draft_model"))
        if key not in best or row["ms_per_token"] < best[key]["ms_per_token"]:
            best[key] = row
    return [best[key] for key in sorted(best)]


def losses(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Split rayspec's step, in µs, for every row that has plain and verify-only beside it.

    `plain` is plain's step. `verify` is what the step of the same engine with random drafts takes
    more, without its wait for them: K+1 tokens instead of one, sampling, packing, the host. `draft`
    is the round as the draft's own clock has it, `link` what the step waited for its drafts beyond
    that, and `rest` what is left: what the draft costs the target without making it wait. Where the
    wait is not counted (on a CPU) `verify` holds that of the random drafts, and `rest` the link.
    """
    by_key = {_key(row): row for row in rows}
    table = []
    for row in rows:
        if row["system"] != "rayspec":
            continue
        where = (row["batch"], row["acceptance"], row["temperature"])
        free = by_key.get((VERIFY_ONLY, "", row["k"], *where))
        plain = by_key.get(("plain", "", 0, row["batch"], 0.0, row["temperature"]))
        if free is None or plain is None:
            continue
        step, free_step, plain_step = (1e3 * r["step_ms"] for r in (row, free, plain))
        draft = row.get("draft", {}).get("round_us", 0.0)
        waited, free_waited = (r.get("link", {}).get("wait_us") for r in (row, free))
        if waited is None or free_waited is None:
            waited, free_waited = draft, 0.0
        table.append(
            {name: row[name] for name in KEY[1:]}
            | {
                "step": step,
                "plain": plain_step,
                "verify": free_step - free_waited - plain_step,
                "draft": draft,
                "link": waited - draft,
                "rest": step - waited - (free_step - free_waited),
                "per_token": (step - plain_step) / row["tokens_per_step"],
            }
        )
    return table
