from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from load_tests.bench import plot, report, table
from load_tests.bench.readings import draft_reading, link_reading

GPUS = {"plain": 1, "rayspec": 2, "verify-only": 2, "colocated": 1}


def sample(system: str, ms: float, tokens: float = 1.0, **more: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "system": system,
        "draft_model": "1b" if system in ("rayspec", "colocated") else "",
        "k": 0 if system == "plain" else 5,
        "round": 0,
        "group": 0,
        "batch": 4,
        "acceptance": 0.0 if system == "plain" else 3.0,
        "temperature": 0.0,
        "steps": 50,
        "rows": 200,
        "step_ms": ms,
        "step_p50_ms": ms,
        "tokens_per_step": tokens,
        "ms_per_token": ms / tokens,
        "tpot_ms": ms / tokens,
    }
    return values | more


def link(wait_us: float) -> dict[str, Any]:
    return {"wait_us": wait_us, "misses": 0, "coverage": 1.0, "errors": {}}


def test_eta_is_what_remains_of_the_promised_gain() -> None:
    samples = [sample("plain", ms) for ms in (5.0, 5.0, 99.0)]
    samples += [sample("rayspec", ms, 3.0) for ms in (6.25, 6.25, 1.0)]
    plain, ours = report.results(samples, GPUS)
    assert plain["speedup"] == plain["eta"] == 1.0
    assert ours["ms_per_token"] == pytest.approx(6.25 / 3)
    assert ours["speedup"] == pytest.approx(2.4)
    assert ours["eta"] == pytest.approx(0.8)
    assert ours["tokens_per_s"] == pytest.approx(4 * 480)
    assert ours["tokens_per_s_gpu"] == pytest.approx(2 * 480)
    assert ours["rounds"] == 3


def test_the_ratio_is_to_plain_of_the_same_group() -> None:
    samples = [sample("plain", 5.0), sample("plain", 10.0, group=1)]
    samples += [sample("rayspec", 10.0, 2.0, group=1), sample("colocated", 10.0, 2.0, group=2)]
    rows = {row["system"]: row for row in report.results(samples, GPUS)}
    assert rows["rayspec"]["speedup"] == pytest.approx(2.0)
    assert rows["rayspec"]["interleaved"]
    assert rows["colocated"]["speedup"] == pytest.approx(1.5)  # plain's median over all groups
    assert not rows["colocated"]["interleaved"]


def test_without_plain_there_is_no_ratio() -> None:
    (row,) = report.results([sample("rayspec", 5.0, 2.0)], GPUS)
    assert row["speedup"] is None
    assert row["eta"] is None


def test_the_quickest_k_is_reported() -> None:
    samples = [sample("plain", 5.0), sample("rayspec", 6.0, 2.0, k=3), sample("rayspec", 6.0, 3.0)]
    best = report.best_k(report.results(samples, GPUS))
    assert [(row["system"], row["k"]) for row in best] == [("plain", 0), ("rayspec", 5)]


def test_losses_add_up_to_the_step() -> None:
    samples = [
        sample("plain", 5.0),
        sample("verify-only", 5.5, 3.0, link=link(200.0), draft={"round_us": 10.0}),
        sample("rayspec", 6.5, 3.0, link=link(1100.0), draft={"round_us": 1000.0}),
    ]
    (loss,) = report.losses(report.results(samples, GPUS))
    parts = {name: round(loss[name]) for name in ("plain", "verify", "draft", "link", "rest")}
    assert parts == {"plain": 5000, "verify": 300, "draft": 1000, "link": 100, "rest": 100}
    assert sum(parts.values()) == round(loss["step"])
    assert loss["per_token"] == pytest.approx(500.0)


def test_readings_are_differences_per_step() -> None:
    def status(sent: int, wait_us: int, drafted: int) -> dict[str, Any]:
        return {"link": {"sent": sent, "wait_us": wait_us}, "drafted": drafted, "errors": {}}

    reading = link_reading(status(10, 1000, 0), status(60, 6000, 450), rows=100, k=5)
    assert reading == {"sent": 50, "wait_us": 100.0, "coverage": 0.9, "errors": {}}


def test_rounds_are_timed_on_the_device_where_there_is_one() -> None:
    host = {"draft_p50_us": 30.0, "links": 1}
    assert draft_reading(host, host) == {"round_us": 30.0}

    def stats(rounds: int, total_us: float, ahead: int) -> dict[str, Any]:
        device = {"rounds_drafted": rounds, "round_sum_us": total_us, "rounds_ahead": ahead}
        return {**host, "on_device": {**device, "rows_not_ready": ahead, "launch_p50_us": 7.0}}

    # What was drafted before the measurement has no part in it.
    assert draft_reading(stats(100, 9e6, 0), stats(110, 9e6 + 8000.0, 5)) == {
        "round_us": 800.0,
        "ahead": 0.5,
        "rows_not_ready": 5,
        "launch_p50_us": 7.0,
    }


def full_report() -> dict[str, Any]:
    samples = [
        sample("plain", 5.0),
        sample("verify-only", 5.5, 3.0, link=link(200.0)),
        sample("rayspec", 6.5, 3.0, link=link(900.0), draft={"round_us": 1e3, "floor_us": 580}),
    ]
    rows = report.results(samples, GPUS)
    return {
        "title": "a title",
        "remarks": ["a remark"],
        "failures": {"ngram-k5": "it would not"},
        "best": report.best_k(rows),
        "losses": report.losses(rows),
    }


def test_the_table_says_it_all() -> None:
    text = table.render(full_report())
    assert text.startswith("a title\na remark\n")
    assert "FAILED ngram-k5: it would not" in text
    assert "3 tokens a step, temperature 0" in text
    (ours,) = [line.split() for line in text.splitlines() if line.split()[1:3] == ["rayspec", "1b"]]
    assert ours[4] == "2.17"  # ms per token
    assert ours[11:13] == ["2.31", "0.77"]  # speedup and η


def test_an_empty_report_is_a_title() -> None:
    empty = {"title": "a title", "remarks": [], "failures": {}, "best": [], "losses": []}
    assert table.render(empty) == "a title\n"


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    file = tmp_path / "plot.png"
    assert plot.draw(full_report(), file)
    assert file.read_bytes().startswith(b"\x89PNG")
