"""The plots of the page, as SVG whose colours come from the page's style."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from rayspec.audit.permutation import Result
from rayspec.audit.report import RequestReport
from rayspec.audit.speed import ALL, ClassSpeed

__all__ = ["by_position", "faster", "requests"]

_WIDTH = 500


def faster(classes: Sequence[ClassSpeed], metric: str) -> Markup:
    """Draw how many times as fast the speculative lane is in each class, on a log scale."""
    rows = [(each.workload_class, ratio) for each in classes if (ratio := each.faster[metric])]
    ends = [v for _, r in rows for v in (r.low or r.value, r.high or r.value)]
    low, high = min([0.8, *ends]) * 0.95, max([1.25, *ends]) * 1.05
    left, right, step = 110, _WIDTH - 70, 26
    height = step * len(rows) + 40

    def x(value: float) -> float:
        return left + (right - left) * math.log(value / low) / math.log(high / low)

    parts = []
    for tick in _ticks(low, high):
        kind = "one" if tick == 1 else "grid"
        parts.append(_line(x(tick), 6, x(tick), height - 26, kind))
        parts.append(_text(x(tick), height - 10, f"{tick:g}×", "middle"))
    for at, (name, ratio) in enumerate(rows):
        y = 20 + step * at
        strong = "strong" if name == ALL else ""
        parts.append(_text(left - 12, y + 4, name, "end", strong))
        if ratio.low is not None and ratio.high is not None:
            parts.append(_line(x(ratio.low), y, x(ratio.high), y, "whisker"))
        told = Markup('<circle cx="{:.1f}" cy="{}" r="5" class="dot"><title>{}</title></circle>')
        parts.append(told.format(x(ratio.value), y, f"{name}: {ratio.value:.2f}×"))
        parts.append(_text(right + 12, y + 4, f"{ratio.value:.2f}×", "start", strong))
    return _svg(height, parts, "How many times as fast, by class")


def requests(rows: Sequence[RequestReport]) -> Markup:
    """Draw each request's time in both lanes; under the diagonal the speculative one was sooner."""
    points = [
        (row, a, b)
        for row in rows
        if (a := row.plain["e2e_ms"]) and (b := row.speculative["e2e_ms"])
    ]
    top = max((max(a, b) for _, a, b in points), default=1.0) * 1.08
    size, left = 300, 70

    def at(value: float) -> float:
        return size * value / top

    parts = [_line(left, 10 + size, left + size, 10, "one")]
    for tick in _even(top):
        parts.append(_line(left, 10 + size - at(tick), left + size, 10 + size - at(tick), "grid"))
        parts.append(_line(left + at(tick), 10, left + at(tick), 10 + size, "grid"))
        parts.append(_text(left - 8, 14 + size - at(tick), f"{tick / 1e3:g}", "end"))
        parts.append(_text(left + at(tick), size + 28, f"{tick / 1e3:g}", "middle"))
    for row, plain, ours in points:
        told = f"request {row.prompt}: {plain:.0f} ms plain, {ours:.0f} ms speculative"
        dot = Markup(
            '<circle cx="{:.1f}" cy="{:.1f}" r="4.5" class="{}"><title>{}</title></circle>'
        )
        kind = "dot" if row.equal else "dot differs"
        parts.append(dot.format(left + at(plain), 10 + size - at(ours), kind, told))
    parts.append(_text(left + size / 2, size + 46, "plain lane, seconds", "middle"))
    turned = Markup(
        '<text transform="rotate(-90)" x="{:.0f}" y="22" text-anchor="middle">{}</text>'
    )
    parts.append(turned.format(-(10 + size / 2), "speculative lane, seconds"))
    return _svg(size + 56, parts, "Time of whole answers in both lanes", left + size + 20)


def by_position(result: Result, strict: float) -> Markup:
    """Draw how surprising each position is by itself, with the line that one test has to reach."""
    values = [-math.log10(p) for p in result.by_group]
    limit = -math.log10(strict)
    top = max(limit * 1.25, *values) if values else 1.0
    left, step, height = 50, 20, 76
    width = step * len(values)
    parts = [
        _line(
            left,
            8 + height * (1 - limit / top),
            left + width,
            8 + height * (1 - limit / top),
            "one",
        )
    ]
    parts.append(_line(left, 8 + height, left + width, 8 + height, "grid"))
    parts.append(_text(left - 6, 12 + height * (1 - limit / top), f"{strict:.2g}", "end"))
    parts.append(_text(left - 6, 12 + height, "1", "end"))
    bar = Markup(
        '<rect x="{}" y="{:.1f}" width="14" height="{:.1f}" class="{}"><title>{}</title></rect>'
    )
    for at, (value, p) in enumerate(zip(values, result.by_group, strict=True)):
        tall = max(1.0, height * value / top)
        kind = "bar differs" if p <= strict else "bar"
        x = left + step * at + 3
        parts.append(
            bar.format(x, 8 + height - tall, tall, kind, f"position {at + 1}: p = {p:.4f}")
        )
        parts.append(_text(x + 7, height + 24, str(at + 1), "middle"))
    return _svg(height + 30, parts, "p-value of each position", left + width + 6)


def _ticks(low: float, high: float) -> list[float]:
    steps = (0.25, 0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 8)
    shown = [step for step in steps if low <= step <= high]
    crowded = (0.7, 0.8, 0.9, 1.1, 1.25, 2.5) if high / low > 3 else (0.9, 1.1)
    return [step for step in shown if high / low <= 1.8 or step not in crowded]


def _even(top: float) -> list[float]:
    step = 10 ** math.floor(math.log10(top / 2))
    step *= next(factor for factor in (1, 2, 5, 10) if top / (step * factor) <= 5)
    return [step * n for n in range(int(top / step) + 1)]


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    line = Markup('<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" class="{}"/>')
    return line.format(x1, y1, x2, y2, kind)


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> Markup:
    line = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}" class="{}">{}</text>')
    return line.format(x, y, anchor, kind, text)


def _svg(height: float, parts: Sequence[Markup], label: str, width: float = _WIDTH) -> Markup:
    opening = Markup(
        '<svg viewBox="0 0 {0:.0f} {1:.0f}" width="{0:.0f}" role="img" aria-label="{2}">'
    )
    return opening.format(width, height, label) + Markup("").join(parts) + Markup("</svg>")
