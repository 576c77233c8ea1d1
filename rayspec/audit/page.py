"""Writes a report as one HTML page that needs nothing else."""

from __future__ import annotations

import functools
import json

import jinja2

from rayspec.audit import charts
from rayspec.audit.permutation import ENDED
from rayspec.audit.report import Report
from rayspec.audit.settings import FailOn

__all__ = ["render"]


def render(report: Report, fail_on: FailOn) -> str:
    """Return the page."""
    pages = jinja2.Environment(
        loader=jinja2.PackageLoader("rayspec.audit", package_path=""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    pages.filters["ms"] = _milliseconds
    pages.filters["percent"] = _percent
    pages.filters["quoted"] = functools.partial(json.dumps, ensure_ascii=False)
    tests = sum(len(each.tests) for each in report.sampled)
    return pages.get_template("page.html").render(
        report=report,
        passed=report.passed(fail_on),
        fail_on=fail_on,
        settings=report.settings,
        charts=charts,
        strict=report.settings.alpha / max(1, tests),
        ended=ENDED,
    )


def _milliseconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"
