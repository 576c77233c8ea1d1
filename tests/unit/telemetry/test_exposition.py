from __future__ import annotations

import logging
from collections import Counter as Tally

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, Summary
from prometheus_client import generate_latest as expose
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from rayspec.telemetry.exposition import UP, Source, merge


def process(served: float) -> str:
    """The exposition of a process with one metric of every type."""
    registry = CollectorRegistry()
    Counter("vllm:served", "Requests.", ["model"], registry=registry).labels("m").inc(served)
    Gauge("load", 'With "quotes",\nnewline and \\.', registry=registry).set(0.5)
    seconds = Histogram("seconds", "Time.", ["lane"], buckets=[0.1, 1.0], registry=registry)
    seconds.labels("own").observe(served)
    Summary("size_bytes", "Sizes.", registry=registry).observe(served)
    Info("build", "Build.", registry=registry).info({"version": 'a"b\\c\nd'})
    return expose(registry).decode()


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    found = [s for family in text_string_to_metric_families(text) for s in family.samples]
    keys = [(s.name, frozenset(s.labels.items())) for s in found]
    assert max(Tally(keys).values(), default=1) == 1, "duplicate series"
    return {key: s.value for key, s in zip(keys, found, strict=True)}


def relabelled(text: str, **labels: str) -> set[tuple[str, frozenset[tuple[str, str]], float]]:
    result = set()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            assert isinstance(sample, Sample)
            kept = {(f"exported_{k}" if k in labels else k): v for k, v in sample.labels.items()}
            both = frozenset({**kept, **labels}.items())
            result.add((sample.name, both, sample.value))
    return result


def test_every_sample_of_every_source_arrives_with_its_labels() -> None:
    first, second = process(3), process(0.5)

    merged = merge(
        [
            Source(first, {"component": "target", "lane": "plain", "replica": "a"}),
            Source(second, {"component": "draft", "replica": "b"}),
        ]
    )

    expected = relabelled(first, component="target", lane="plain", replica="a")
    expected |= relabelled(second, component="draft", replica="b")
    found = {(name, labels, value) for (name, labels), value in samples(merged).items()}
    assert {each for each in found if each[0] != UP} == expected


def test_help_and_type_appear_once_and_names_are_kept() -> None:
    merged = merge([Source(process(1), {"replica": "a"}), Source(process(2), {"replica": "b"})])

    heads = [line.rsplit(" ", 1)[0] for line in merged.splitlines() if line.startswith("# TYPE")]
    assert len(heads) == len(set(heads))
    assert "# TYPE vllm:served_total counter" in merged
    assert 'vllm:served_total{model="m",replica="a"} 1.0' in merged
    assert "# TYPE vllm:served_created gauge" in merged
    assert "seconds_bucket{exported_lane=" not in merged
    assert 'seconds_bucket{lane="own",le="+Inf",replica="b"} 1.0' in merged
    assert "# TYPE seconds histogram" in merged
    assert "# TYPE build_info gauge" in merged


def test_samples_of_a_family_stay_together() -> None:
    merged = merge([Source(process(1), {"replica": "a"}), Source(process(2), {"replica": "b"})])

    names = [line.split("{")[0] for line in merged.splitlines() if line.startswith("load")]
    at = [i for i, line in enumerate(merged.splitlines()) if line.startswith("load")]
    assert names == ["load", "load"]
    assert at[1] - at[0] == 1


def test_merging_what_was_merged_changes_nothing() -> None:
    once = merge([Source(process(1), {"replica": "a"}), Source(process(2), {"replica": "b"})])
    twice = merge([Source(once)])

    kept = {key: value for key, value in samples(once).items() if key[0] != UP}
    assert kept.items() <= samples(twice).items()


def test_a_source_s_own_label_is_kept_under_another_name() -> None:
    merged = merge([Source('x{lane="own"} 1\n', {"lane": "plain"})])

    assert 'x{exported_lane="own",lane="plain"} 1.0' in merged


def test_the_same_series_twice_counts_once() -> None:
    assert samples(merge([Source("x 1\n"), Source("x 2\n")]))["x", frozenset()] == 1.0


@pytest.mark.parametrize("text", [None, "x{ 1\n", "# TYPE x\n", "x one\n"])
def test_a_source_that_cannot_be_read_does_not_spoil_the_scrape(text: str | None) -> None:
    merged = samples(merge([Source(text, {"replica": "a"}), Source("x 1\n", {"replica": "b"})]))

    assert merged == {
        ("x", frozenset({("replica", "b")})): 1.0,
        (UP, frozenset({("replica", "a")})): 0.0,
        (UP, frozenset({("replica", "b")})): 1.0,
    }


def test_a_family_of_another_type_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    sources = [
        Source("# TYPE x gauge\nx 1\n", {"replica": "a"}),
        Source("# TYPE x summary\nx_sum 1\nx_count 1\n", {"replica": "b"}),
        Source("# TYPE x_total counter\nx_total 5\n", {"replica": "b"}),
    ]
    with caplog.at_level(logging.WARNING):
        merged = samples(merge(sources))

    assert merged["x", frozenset({("replica", "a")})] == 1.0
    assert merged["x_total", frozenset({("replica", "b")})] == 5.0
    assert not any(name in ("x_sum", "x_count") for name, _ in merged)
    assert "metric x is a gauge here and a summary there" in caplog.text


def test_no_source_is_an_empty_scrape_that_parses() -> None:
    assert samples(merge([])) == {}
