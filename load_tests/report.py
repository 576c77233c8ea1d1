"""Compares load test results in one HTML page that needs nothing else.

    python load_tests/report.py routed.json speculative.json plain.json --out report.html

Every result is one run of `load_tests/locustfile.py --result`; the others are compared with the
baseline, which is the last one unless `--baseline` names another. Exits with 1 if a request failed
or, with `--strict`, if a greedy answer differed from another one to the same prompt.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a script
    sys.path.insert(0, str(ROOT))

from load_tests.traffic.compare import ENOUGH, FASTER, Comparison  # noqa: E402
from load_tests.traffic.figures import classes_plot, overview_plot  # noqa: E402
from load_tests.traffic.result import read_result  # noqa: E402

__all__ = ["main", "render"]

PAGE = Path(__file__).parent / "traffic" / "page.html"


def _tone(ratio: float | None) -> str:
    if ratio is None or 1 / FASTER < ratio < FASTER:
        return ""
    return "good" if ratio > 1 else "bad"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def render(comparison: Comparison) -> str:
    """Return the page."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["ms"] = lambda value: f"{value:.0f}" if value >= 100 else f"{value:.1f}"
    environment.filters["percent"] = lambda share: "–" if share is None else f"{share:.0%}"
    environment.filters["tone"] = _tone
    environment.filters["counts"] = _counts
    results = [run.result for run in comparison.runs]
    facts: dict[str, Any] = {
        name: sum(result[name] for result in results)
        for name in ("requests", "failures", "wrong", "repeated")
    }
    return environment.from_string(PAGE.read_text(encoding="utf-8")).render(
        c=comparison,
        enough=ENOUGH,
        slo=any(any(result["slo"].values()) for result in results),
        overview=overview_plot(comparison),
        tpot=classes_plot(comparison, "tpot_ms", "ms"),
        e2e=classes_plot(comparison, "e2e_ms", "s", 1e-3),
        **facts,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Read the results and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("results", nargs="+", type=Path, help="JSON of runs")
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="the page")
    parser.add_argument("--baseline", default="", help="label of the run to compare with")
    parser.add_argument("--strict", action="store_true", help="texts that differ are an error")
    options = parser.parse_args(argv)
    try:
        comparison = Comparison([read_result(path) for path in options.results], options.baseline)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(render(comparison), encoding="utf-8")
    failures, wrong = (
        sum(r.result[name] for r in comparison.runs) for name in ("failures", "wrong")
    )
    print(f"{options.out}: {len(comparison.runs)} runs, {failures} failures, {wrong} wrong")
    for run in comparison.others:
        print(f"{run.label} against {comparison.baseline.label}:")
        print("".join(f"  {sentence}\n" for sentence in comparison.sentences(run)), end="")
    return int(bool(failures or (options.strict and wrong)))


if __name__ == "__main__":
    sys.exit(main())
