"""Reads recorded traffic: JSONL of ours, or CSV as Azure and BurstGPT publish it.

Columns are recognised by their names, in any order:

| format | arrival | prompt tokens | output tokens | class |
|---|---|---|---|---|
| ours (JSONL or CSV) | arrival_s | prompt_tokens | output_tokens | workload_class, optional |
| Azure LLM inference | TIMESTAMP (ISO) | ContextTokens | GeneratedTokens | |
| BurstGPT | Timestamp (seconds) | Request tokens | Response tokens | |
"""

from __future__ import annotations

import csv
import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np

from rayspec.errors import ConfigError
from rayspec.planning.traces import Trace

__all__ = ["read_trace"]

logger = logging.getLogger(__name__)

_ARRIVAL: Final = ("arrival_s", "arrived_at", "timestamp", "time")
_PROMPT: Final = ("prompt_tokens", "contexttokens", "request tokens", "input_tokens")
_OUTPUT: Final = (
    "output_tokens",
    "generatedtokens",
    "response tokens",
    "completion_tokens",
)
_CLASS: Final = ("workload_class", "class")


def read_trace(file: Path, default_class: str | None = None, limit: int | None = None) -> Trace:
    """Return the requests of a file; those without a prompt or an answer are left out.

    `default_class` is for requests that name none.
    """
    rows: list[tuple[float, int, int, str]] = []
    skipped = 0
    try:
        for number, record in enumerate(islice(_records(file), limit), start=1):
            row = _row(file, number, record, default_class)
            if row[1] < 1 or row[2] < 1:
                skipped += 1
            else:
                rows.append(row)
    except OSError as error:
        raise ConfigError("trace", str(file), f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError("trace", str(file), "is not a text file") from None
    if not rows:
        raise ConfigError("trace", str(file), "has no request with a prompt and an answer")
    if skipped:
        logger.warning("%s: %d requests without prompt or answer are left out", file, skipped)
    rows.sort(key=lambda row: row[0])
    classes = tuple(sorted({row[3] for row in rows}))
    arrivals = np.array([row[0] for row in rows])
    return Trace(
        classes,
        np.array([classes.index(row[3]) for row in rows]),
        np.array([row[1] for row in rows]),
        np.array([row[2] for row in rows]),
        arrivals - arrivals[0],
    )


def _records(file: Path) -> Iterator[Mapping[str, Any]]:
    """Yield records with lower-case keys."""
    with file.open(encoding="utf-8-sig", newline="") as lines:
        if file.suffix.lower() == ".csv":
            yield from _lower(csv.DictReader(lines))
        else:
            yield from _lower(_jsonl(file, lines))


def _jsonl(file: Path, lines: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise ConfigError("trace", f"{file}:{number}", "is not a JSON object")
        yield record


def _lower(records: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for record in records:
        yield {str(key).strip().lower(): value for key, value in record.items()}


def _row(
    file: Path, number: int, record: Mapping[str, Any], default_class: str | None
) -> tuple[float, int, int, str]:
    where = f"{file}, request {number}"
    name = _find(record, _CLASS) or default_class
    if not name:
        raise ConfigError("trace", where, "names no workload class; give one with --class")
    try:
        arrival = _seconds(_find(record, _ARRIVAL, where))
        prompt = int(float(_find(record, _PROMPT, where)))
        output = int(float(_find(record, _OUTPUT, where)))
    except (ValueError, OverflowError) as error:
        raise ConfigError("trace", where, str(error)) from None
    return arrival, prompt, output, str(name)


def _find(record: Mapping[str, Any], names: tuple[str, ...], where: str = "") -> Any:
    """Return the first of `names` that is there; needed if `where` says whose it is."""
    for name in names:
        value = record.get(name)
        if value is not None and value != "":
            return value
    if where:
        raise ConfigError("trace", where, f"has none of {', '.join(names)}")
    return None


def _seconds(value: object) -> float:
    """Read seconds, or an ISO date and time, which without a zone is UTC."""
    try:
        seconds = float(str(value))
    except ValueError:
        moment = datetime.fromisoformat(str(value))
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if not math.isfinite(seconds):
        raise ValueError(f"{value!r} is not a time")
    return seconds
