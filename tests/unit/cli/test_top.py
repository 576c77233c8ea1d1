from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from rayspec.cli.main import app
from rayspec.cli.top import NotShown
from rayspec.cli.top_view import fitting, render, trouble
from tests.unit.ingress.test_overview import A, Bench, P, S


async def serving() -> dict[str, Any]:
    bench = Bench()
    bench.measure()
    bench.serve()
    bench.serve("code")
    return await bench.state()


def text(shown: Any) -> str:
    console = Console(width=160, force_terminal=False)
    with console.capture() as capture:
        console.print(shown)
    return capture.get()


async def test_a_serving_application() -> None:
    state = await serving()
    state["links"][0]["shards"] = [
        {"state": "ready", "live": 1, "link": {"sent": 10, "received": 9, "rtt_ewma_us": 2500}}
    ]
    shown = text(render(state, 5))
    assert "speculative  ████" in shown
    assert "3 of 16" in shown
    assert "draft: ready  wait 2 ms, drafting 0 µs, 90% of 10 steps answered in time" in shown
    assert "chat" in shown
    assert "75%" in shown
    assert shown.count("faster") + shown.count("default") + shown.count("explore") == 2


async def test_nothing_to_show_is_said() -> None:
    shown = text(render(await Bench(links=0).state(), 5))
    assert "none reports" in shown
    assert "no engine of the speculative lane answers" in shown
    assert "No request was seen" in shown
    assert "No request was routed yet" in shown


async def test_one_lane() -> None:
    shown = text(render(await Bench(lanes=(P,)).state(), 5))
    assert "speculative  no such lane" in shown
    assert "draft: none" in shown


async def test_a_link_that_is_down_says_why() -> None:
    state = await serving()
    link = {"sent": 3, "received": 3, "down_reason": "the draft does not answer"}
    state["links"][0]["shards"] = [{"state": "detached", "live": 0, "link": link}]
    assert "draft: detached the draft does not answer" in text(render(state, 5))


async def test_an_engine_that_drafts_itself_says_how() -> None:
    state = await serving()
    state["links"][0] |= {
        "method": "ngram",
        "shards": [],
        "drafted_per_pos": [10, 6],
        "accepted_per_pos": [5, 3],
    }
    assert "draft: ngram in the engine  50% of 16 tokens accepted" in text(render(state, 5))


async def test_a_new_draft_says_how_it_stands() -> None:
    state = await serving()
    found = {"gain": 0.5, "low": 0.25, "high": 0.75, "base": 2.0}
    requests = {"old": 90, "new": 10}
    state["trial"] = {"state": "promoted", "requests": requests, "tokens_per_step": found}
    told = "new draft: promoted  10 requests beside 90 of the old one, +0.50 tokens a step"
    assert told in text(render(state, 5))


async def test_what_was_shown_stays_under_the_reason_why_it_is_old() -> None:
    shown = text(trouble("cannot ask", render(await serving(), 5)))
    assert shown.startswith("cannot ask")
    assert "chat" in shown
    assert text(trouble("cannot ask", None)).strip() == "cannot ask"


async def test_it_fits_the_terminal() -> None:
    state = await serving()
    state["decisions"] *= 50
    for height in (20, 30, 60):
        shown = text(render(state, fitting(state, height)))
        assert len(shown.splitlines()) <= height


@contextmanager
def server(status: int, answer: bytes, keys: list[str]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            keys.append(self.headers.get("authorization", ""))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()
        thread.join()


async def test_once_prints_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYSPEC_API_KEY", "secret")
    monkeypatch.setenv("COLUMNS", "160")
    keys: list[str] = []
    with server(200, json.dumps(await serving()).encode(), keys) as url:
        done = CliRunner().invoke(app, ["top", "--once", "--rows", "1", "--url", url])
    assert done.exit_code == 0
    assert "rayspec m" in done.output
    assert keys == ["Bearer secret"]


@pytest.mark.parametrize(
    ("status", "answer", "why"),
    [
        (401, b"", "RAYSPEC_API_KEY"),
        (404, b"", "ingress.ui"),
        (500, b"", "500"),
        (200, b"no json", "cannot ask"),
    ],
)
def test_once_fails_with_one_line(status: int, answer: bytes, why: str) -> None:
    with server(status, answer, []) as url:
        done = CliRunner().invoke(app, ["top", "--once", "--url", url])
    assert isinstance(done.exception, NotShown)
    assert why in str(done.exception)
    assert "\n" not in str(done.exception)


async def test_three_lanes() -> None:
    bench = Bench(lanes=(S, A, P))
    bench.measure()
    bench.serve()
    state = await bench.state()
    shown = text(render(state, 5))
    assert shown.index("speculative  ") < shown.index("alternative  ") < shown.index("plain  ")
    assert "chat speculative" in shown
    assert "chat alternative" in shown
    assert "speculative or alternative" in shown or "no figures yet" in shown
    assert "draft: ngram in the engine" in shown
    assert fitting(state, 50) == fitting({**state, "lanes": {}}, 50) - 1
