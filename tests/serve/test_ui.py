"""The built-in page and `rayspec top`, while load runs in both lanes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import expect

from tests.support.application import BASE_URL, ROOT, Application
from tests.support.both_lanes import TEXTS, both_lanes
from tests.support.browser import chromium, keep, looking

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module", autouse=True)
def served(app: Application) -> Iterator[None]:
    with both_lanes():
        time.sleep(25)  # two intervals of the history and some more
    # A browser needs what four busy users would not leave it on two cores.
    with both_lanes(pause_s=3.0):
        yield


def test_the_page_shows_what_happens() -> None:
    complaints, asked = list[str](), list[str]()
    with chromium() as browser, looking(browser, complaints=complaints) as page:
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{BASE_URL}/ui")
        expect(page.locator("#status")).to_have_text("live")
        for lane in ("speculative", "plain"):
            expect(page.locator(f"#lane-{lane}")).to_contain_text("1 engine")
            expect(page.locator(f"#lane-{lane} .figure")).to_contain_text("of 16 sequences")
            expect(page.locator("#decisions")).to_contain_text(lane)
            expect(page.locator(f"#crossover g.{lane}-ink path.line").first).to_be_attached()
            expect(page.locator(f"#load g.{lane}-ink path.line").first).to_be_attached()
        expect(page.locator("#link .chip.good")).to_have_text("ready")
        expect(page.locator("#link")).to_contain_text("100 % of")
        for name in TEXTS:
            expect(page.locator("#classes")).to_contain_text(name)
        expect(page.locator("#acceptance path.line").first).to_be_attached()
        expect(page.locator("#decisions")).to_contain_text("override speculation=off")
        shown = page.inner_text("main")
        assert not any(word in shown for word in ("NaN", "undefined", "Infinity", "null"))
        assert not any(text[:30] in shown for text in TEXTS.values())
        keep(page, "light")
        for width, scheme in ((1280, "dark"), (390, "light")):
            with looking(browser, width=width, scheme=scheme, complaints=complaints) as other:  # type: ignore[arg-type]
                other.goto(f"{BASE_URL}/ui")
                expect(other.locator("#status")).to_have_text("live")
                assert other.evaluate("document.documentElement.scrollWidth") <= width
                keep(other, f"{scheme}-{width}")
    assert complaints == []
    assert all(url.startswith((f"{BASE_URL}/ui", "data:")) for url in asked)


def test_the_document_is_about_now_and_never_about_texts() -> None:
    answer = httpx.get(f"{BASE_URL}/ui/state", timeout=30).raise_for_status()
    state = answer.json()
    assert abs(state["at"] - time.time()) < 10
    assert {told["lane"] for told in state["decisions"]} == {"speculative", "plain"}
    ended = [told for told in state["decisions"] if told["finished"]]
    assert ended
    assert all(told["output_tokens"] > 0 and told["seconds"] > 0 for told in ended)
    assert not any(text[:30] in answer.text for text in TEXTS.values())
    counts = state["history"]["classes"]["code"]
    assert sum(counts["drafted"]) >= sum(counts["accepted"]) > 0


def test_a_terminal_shows_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rayspec.cli", "top", "--once", "--url", BASE_URL],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "COLUMNS": "160", "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    assert "draft: ready" in done.stdout
    for word in ("speculative", "plain", "override speculation=on", "breakeven", *TEXTS):
        assert word in done.stdout
