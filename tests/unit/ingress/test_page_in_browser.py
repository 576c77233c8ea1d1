"""The page in a real browser, with documents that no test could make an application say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from rayspec.ingress import page as served
from rayspec.routing import Lane
from tests.support.browser import chromium, keep, looking
from tests.unit.ingress.test_overview import Bench

URL = "http://rayspec.test"
Answer = Callable[[Route], None]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


def document(bench: Bench) -> dict[str, Any]:
    # Playwright's own loop runs in this thread.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(bench.state())).result()


def busy() -> dict[str, Any]:
    bench = Bench()
    bench.measure()
    for name in ("chat", "chat", "code"):
        bench.serve(name)
        bench.clock.now += 10
    return document(bench)


def lengthy() -> dict[str, Any]:
    """Return a document in which whatever has no bound is long."""
    state, name = busy(), "questions_of_our_customers"
    state["model"] = "organisation/a-model-with-a-name-that-goes-on-for-a-while-instruct"
    reason = "faster speculative 12314+1225ms < plain 167600ms at measured acceptance 0.99"
    ended = {
        "finished": True,
        "seconds": 754.3,
        "output_tokens": 123456,
        "drafted": 9,
        "accepted": 9,
    }
    for told in state["decisions"]:
        told |= ended | {"lane": "speculative", "k": 16, "reason": reason, "workload_class": name}
    state["decisions"][0]["finished"] = False
    state["classes"] = [state["classes"][0] | {"name": name, "predicted": False}]
    state["history"]["classes"] = {name: state["history"]["classes"]["chat"]}
    state["crossover"] = [state["crossover"][0] | {"name": name}]
    counts = dict.fromkeys(("sent", "received", "misses", "skipped", "deaths", "attaches"), 9999999)
    link = counts | {"rtt_ewma_us": 123456, "draft_ewma_us": 99999, "down_reason": "/a/path" * 20}
    state["links"][0] |= {
        "drafted_per_pos": [12345] * 16,
        "accepted_per_pos": [12000] * 16,
        "shards": [{"state": "detached", "live": 1, "link": link}] * 3,
    }
    return state


def show(page: Page, answer: Answer) -> None:
    html = served.respond()
    page.route(
        f"{URL}/app/ui",
        lambda route: route.fulfill(body=bytes(html.body), headers=dict(html.headers)),
    )
    page.route(f"{URL}/app/ui/state", answer)
    page.goto(f"{URL}/app/ui")


def saying(state: dict[str, Any]) -> Answer:
    return lambda route: route.fulfill(json=state)


def test_empty_states_are_said(browser: Browser) -> None:
    with looking(browser) as page:
        show(page, saying(document(Bench(links=0))))
        expect(page.locator("#status")).to_have_text("a lane is missing")
        expect(page.locator("#lane-plain")).to_contain_text("no engine reports")
        expect(page.locator("#link")).to_contain_text("No engine of the speculative lane answers")
        expect(page.locator("#crossover")).to_contain_text("Step times are not known yet")
        expect(page.locator("#acceptance")).to_contain_text("Nothing was drafted")
        expect(page.locator("#classes")).to_contain_text("No request was seen")
        expect(page.locator("#decisions")).to_contain_text("No request was routed yet")
        assert "NaN" not in page.inner_text("main")


def test_one_lane(browser: Browser) -> None:
    bench = Bench(lanes=(Lane.PLAIN,))
    bench.measure()
    bench.serve()
    with looking(browser) as page:
        show(page, saying(document(bench)))
        expect(page.locator("#lane-speculative")).to_contain_text("no such lane")
        expect(page.locator("#link")).to_contain_text("Without a speculative lane")
        expect(page.locator("#crossover-said")).to_contain_text("Only the plain lane")


def test_an_engine_that_drafts_itself(browser: Browser) -> None:
    state = busy()
    own = {"method": "ngram", "attached": True, "shards": [], "disabled_reason": None}
    counts = {"drafted_per_pos": [10, 5], "accepted_per_pos": [5, 1]}
    # An engine that has not drafted yet has no positions.
    nothing: dict[str, Any] = {"drafted_per_pos": [], "accepted_per_pos": []}
    state["links"] = [own | nothing, own | counts]
    with looking(browser) as page:
        show(page, saying(state))
        expect(page.locator("#link h2")).to_have_text("Draft in the engine")
        expect(page.locator("#link .chip.good")).to_have_text("ngram")
        expect(page.locator("#link")).to_contain_text("accepted by position: 50 % · 20 %")
        expect(page.locator("#tiles")).to_contain_text("attached")


def test_three_lanes(browser: Browser) -> None:
    bench = Bench(lanes=(Lane.SPECULATIVE, Lane.ALTERNATIVE, Lane.PLAIN))
    bench.measure()
    for _ in range(3):
        bench.serve()
        bench.clock.now += 10
    state = document(bench)
    figures = {"sent": 9, "received": 9, "rtt_ewma_us": 2500, "draft_ewma_us": 900}
    shard = {"state": "ready", "live": 1, "link": figures}
    state["links"][0] |= {"shards": [shard], "drafted_per_pos": [8], "accepted_per_pos": [2]}
    state["links"][1] |= {"drafted_per_pos": [4, 2], "accepted_per_pos": [3, 1]}
    complaints: list[str] = []
    with looking(browser, complaints=complaints) as page:
        show(page, saying(state))
        expect(page.locator("#lane-alternative h2")).to_have_text("Alternative lane")
        expect(page.locator("#link h2")).to_have_text("Draft link, draft in the engine")
        expect(page.locator("#link")).to_contain_text("speculative, accepted by position: 25 %")
        told = "alternative, accepted by position: 75 % · 50 %"
        expect(page.locator("#link")).to_contain_text(told)
        expect(page.locator("#crossover-said")).to_contain_text("alternative, now at 3")
        expect(page.locator("#load-legend")).to_contain_text("alternative")
        expect(page.locator("#classes tbody tr")).to_have_count(2)
        expect(page.locator("#classes")).to_contain_text("chat alternative")
        keep(page, "three-lanes")
        # Where there are two, the third is not seen.
        show(page, saying(busy()))
        expect(page.locator("#lane-plain h2")).to_have_text("Plain lane")
        expect(page.locator("#lane-alternative")).to_be_hidden()
        expect(page.locator("#classes")).not_to_contain_text("speculative")
    assert complaints == []


def test_a_new_draft_is_seen_with_what_it_gains(browser: Browser) -> None:
    state = busy()
    found = {"gain": 0.5, "low": -0.25, "high": 1.25, "base": 2.0}
    requests = {"old": 90, "new": 10}
    state["trial"] = {"state": "rolled_back", "requests": requests, "tokens_per_step": found}
    with looking(browser) as page:
        show(page, saying(state))
        told = "new draft rolled back, 10 requests beside 90 of the old one"
        expect(page.locator("#link")).to_contain_text(told)
        expect(page.locator("#link")).to_contain_text("+0.50 tokens a step, −0.25 to +1.25")
        state["trial"] |= {"state": "trial", "tokens_per_step": None}
        show(page, saying(state))
        expect(page.locator("#link")).to_contain_text("new draft trial, 10 requests")


def test_a_lost_draft_is_seen_with_its_reason(browser: Browser) -> None:
    state = busy()
    link = {"sent": 3, "received": 3, "deaths": 1, "down_reason": "the draft is silent"}
    state["links"][0] |= {
        "attached": False,
        "shards": [{"state": "detached", "live": 0, "link": link}],
    }
    with looking(browser) as page:
        show(page, saying(state))
        expect(page.locator("#link .chip.bad")).to_have_text("detached")
        expect(page.locator("#link")).to_contain_text("the draft is silent")
        expect(page.locator("#tiles")).to_contain_text("detached")


def test_the_last_that_was_said_stays_when_the_ingress_is_gone(browser: Browser) -> None:
    gone = False

    def answer(route: Route) -> None:
        if gone:
            route.abort()
        else:
            route.fulfill(json=busy())

    with looking(browser) as page:
        show(page, answer)
        expect(page.locator("#status")).to_have_text("live")
        gone = True
        expect(page.locator("#status")).to_have_text("not reachable")
        expect(page.locator("main")).to_have_class("stale")
        expect(page.locator("#decisions .decision")).to_have_count(3)
        gone = False
        expect(page.locator("#status")).to_have_text("live")
        expect(page.locator("#notice")).to_be_hidden()


def test_a_key_is_asked_for_and_sent(browser: Browser) -> None:
    def answer(route: Route) -> None:
        if route.request.headers.get("authorization") == "Bearer secret":
            route.fulfill(json=busy())
        else:
            route.fulfill(status=401, json={"error": {}})

    with looking(browser) as page:
        show(page, answer)
        page.get_by_label("API key").fill("secret")
        page.get_by_role("button", name="Show", exact=True).click()
        expect(page.locator("#status")).to_have_text("live")
        assert page.evaluate("localStorage.length") == 0


def test_names_and_reasons_are_text(browser: Browser) -> None:
    state, complaints = busy(), list[str]()
    state["model"] = state["decisions"][0]["reason"] = "<img src=x onerror=alert(1)>"
    with looking(browser, complaints=complaints) as page:
        show(page, saying(state))
        expect(page.locator("#model")).to_have_text("<img src=x onerror=alert(1)>")
        assert page.locator("main img").count() == 0
    assert complaints == []


def test_charts_tell_what_is_under_the_pointer(browser: Browser) -> None:
    with looking(browser) as page:
        show(page, saying(busy()))
        chart = page.locator("#crossover")
        expect(chart.locator("path.line")).to_have_count(2)
        chart.hover(position={"x": 200, "y": 100})
        expect(chart.locator(".tip")).to_contain_text("in an engine")
        expect(chart.locator(".tip")).to_contain_text("speculative")
        page.get_by_role("button", name="whole answer").click()
        expect(page.get_by_role("button", name="whole answer")).to_have_attribute(
            "aria-pressed", "true"
        )
        page.get_by_label("Workload class").select_option("code")
        expect(page.locator("#crossover-said")).to_contain_text("usual code request")


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
@pytest.mark.parametrize(("scheme", "told"), [("light", busy), ("dark", busy), ("light", lengthy)])
def test_it_fits_every_width(browser: Browser, width: int, scheme: Any, told: Any) -> None:
    complaints: list[str] = []
    with looking(browser, width=width, scheme=scheme, complaints=complaints) as page:
        show(page, saying(told()))
        expect(page.locator("#status")).to_have_text("live")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        keep(page, f"{told.__name__}-{width}-{scheme}")
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (dark == "rgb(16, 19, 24)") == (scheme == "dark")
    assert complaints == []
