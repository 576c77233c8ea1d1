"""docs/metrics.md has exactly the metrics that there are."""

from __future__ import annotations

from tests.support.metric_table import documented, exported

FROM_THE_SCRAPE = {"rayspec_source_up"}


def test_every_metric_is_documented_as_it_is_exported() -> None:
    rows = documented()
    assert len({row.name for row in rows}) == len(rows)
    assert [str(row) for row in rows if row.name not in FROM_THE_SCRAPE] == [
        str(row) for row in exported()
    ]
