"""A whole calibration against an application that speaks the real one's HTTP, without engines."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from rayspec.errors import ConfigError
from rayspec.planning.calibrate import Options, calibrate
from rayspec.planning.calibrate_client import Client, sample_sum
from rayspec.planning.calibrate_limits import LaneLimits, Limits
from rayspec.planning.calibrate_prompts import Prompt
from rayspec.planning.calibrate_watch import Effort
from rayspec.planning.calibration import CALIBRATED, Calibration
from rayspec.routing.types import Lane

URL = "http://app"
SEATS = 4
LIMITS = Limits({lane: LaneLimits(SEATS, 512, 1) for lane in CALIBRATED}, "ngram", known=True)


class Body(httpx.AsyncByteStream):
    """An answer that comes in pieces, and a seat that is free again when it ends."""

    def __init__(self, pieces: AsyncGenerator[bytes, None], leave: Callable[[], None]) -> None:
        self._pieces = pieces
        self._leave = leave

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces

    async def aclose(self) -> None:
        await self._pieces.aclose()
        self._leave()


class Application(httpx.AsyncBaseTransport):
    """Answers like an application: drafts are accepted in turn, none, one, up to K."""

    def __init__(self) -> None:
        self.lanes: dict[str, dict[str, Any]] = {
            "speculative": {"replicas": 1, "draft_attached": True},
            "plain": {"replicas": 1},
        }
        self.requests = self.drafted = 0
        self.running: Counter[str] = Counter()
        self.first_tokens: Counter[str] = Counter()
        self.salts: list[str] = []
        self.most = SEATS
        self.broken_after: int | None = None
        self.dies_after: int | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        match request.url.path:
            case "/health":
                return httpx.Response(200, json={"status": "ok", "lanes": self.lanes})
            case "/metrics":
                return httpx.Response(200, text=self.metrics())
        self.requests += 1
        if self.dies_after is not None and self.requests > self.dies_after:
            raise httpx.ConnectError("gone")
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": "tiny"}]})
        body = json.loads(request.content)
        if request.url.path == "/tokenize":
            text = json.dumps(body["messages"])
            return httpx.Response(200, json={"tokens": list(text.encode()), "max_model_len": 512})
        if self.broken_after is not None and self.requests > self.broken_after:
            return httpx.Response(503, json={"error": {"message": "lost"}})
        lane = "plain" if body["rayspec"]["speculation"] == "off" else "speculative"
        if self.running[lane] >= self.most:
            return httpx.Response(429, json={"error": {"message": "full"}})
        self.running[lane] += 1
        self.salts.append(body["cache_salt"])
        headers = {"x-rayspec-lane": lane, "x-rayspec-class": "chat"}
        stream = Body(self.events(body, lane), lambda: self.running.subtract([lane]))
        return httpx.Response(200, headers=headers, stream=stream)

    async def events(self, body: dict[str, Any], lane: str) -> AsyncGenerator[bytes, None]:
        # As the router may: fewer drafts unless told.
        k = body["rayspec"].get("k", 1) if lane == "speculative" else 0
        told = drafted = turn = 0
        while told < body["max_tokens"]:
            await asyncio.sleep(0.001)
            if told == 0:
                count = 1
                self.first_tokens[lane] += 1
            else:
                count = 1 + turn % (k + 1)
                drafted += k
                self.drafted += k
            told, turn = told + count, turn + 1
            yield _event({"choices": [{"index": 0, "token_ids": [7] * count}]})
        facts = {"speculative_decoding": {"num_draft_tokens": drafted}}
        usage = {"prompt_tokens": 9, "completion_tokens": told}
        yield _event({"choices": [], "usage": usage, "metrics": facts if k else None})
        yield b"data: [DONE]\n\n"

    def metrics(self) -> str:
        lines = [
            f'rayspec_requests_total{{lane="plain"}} {self.requests}.0',
            f'vllm:num_requests_running{{lane="plain"}} {self.running.total()}.0',
            f"vllm:spec_decode_num_draft_tokens_total {self.drafted}.0",
            "rayspec_draft_server_draft_p50_us 250.0",
        ]
        for lane in CALIBRATED:
            for part in ("sum", "count"):
                value = self.first_tokens[lane] * (0.001 if part == "sum" else 1.0)
                name = f"vllm:time_to_first_token_seconds_{part}"
                lines.append(f'{name}{{lane="{lane}"}} {value}')
        lines += [f'rayspec_position_drafted_tokens_total{{position="{n}"}} 1.0' for n in range(4)]
        return "\n".join(["# a scrape", *lines, ""])


def _event(content: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(content).encode() + b"\n\n"


def prompt(name: str) -> Prompt:
    return Prompt(name, {"messages": [{"role": "user", "content": f"a question of {name}"}]})


@pytest.fixture
def app() -> Application:
    return Application()


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(
        url=URL,
        out=tmp_path / "calibration.json",
        prompts=[prompt("code"), prompt("code"), prompt("")],
        depth="quick",
        limits=LIMITS,
        progress=False,
        effort=Effort(steps=6, seconds=0.0, prefills=1, answer_tokens=40),
    )


async def test_one_file_with_everything(app: Application, options: Options) -> None:
    outcome = await calibrate(options, Client(URL, app))
    calibration = Calibration.load(options.out)
    assert calibration == outcome.calibration
    assert (calibration.model, calibration.draft) == ("tiny", "ngram")
    assert calibration.k_tiers == [0, 2, 4]
    assert calibration.draft_s == pytest.approx(250e-6)
    # Times of a made-up engine scatter; nothing else is to be said.
    assert [remark for remark in outcome.remarks if "scatters" not in remark] == []
    for lane, profile in calibration.lanes.items():
        measured = {(step.batch, step.k) for step in profile.steps}
        tiers = (0, 2, 4) if lane is Lane.SPECULATIVE else (0,)
        assert measured == {(batch, k) for batch in (1, 2, 4) for k in tiers}
        assert (profile.max_num_seqs, profile.chunk_tokens, profile.gpus) == (SEATS, 512, 1)
    # The class of the third prompt is what the application said.
    assert set(calibration.classes) == {"code", "chat"}
    code = calibration.classes["code"]
    assert code.coverage == 1.0
    assert code.acceptance == sorted(code.acceptance, reverse=True)
    assert len(code.acceptance) == 4
    assert len(set(app.salts)) == len(app.salts)
    assert app.running.total() == 0
    assert sorted(path.name for path in options.out.parent.iterdir()) == [options.out.name]


async def test_an_interrupted_calibration_goes_on(app: Application, options: Options) -> None:
    with pytest.raises(ConfigError, match=r"needed are left; run the same command again"):
        await calibrate(replace(options, budget_s=0.1), Client(URL, app))
    before = app.requests
    assert before > 5
    assert not options.out.exists()
    again = Application()
    await calibrate(options, Client(URL, again))
    fresh = Application()
    other = replace(options, out=options.out.with_name("other.json"))
    await calibrate(other, Client(URL, fresh))
    assert again.requests < fresh.requests


async def test_what_was_measured_of_another_application_does_not_count(
    app: Application, options: Options
) -> None:
    with pytest.raises(ConfigError):
        await calibrate(replace(options, budget_s=0.1), Client(URL, app))
    changed = replace(options, limits=replace(LIMITS, draft="model 1B"))
    again, fresh = Application(), Application()
    await calibrate(changed, Client(URL, again))
    await calibrate(replace(changed, out=options.out.with_name("b.json")), Client(URL, fresh))
    assert again.requests == fresh.requests


async def test_an_engine_that_takes_fewer_than_configured(
    app: Application, options: Options
) -> None:
    app.most = 2
    outcome = await calibrate(options, Client(URL, app))
    assert {p.max_num_seqs for p in outcome.calibration.lanes.values()} == {2}
    assert any("gave nothing" in remark for remark in outcome.remarks)


async def test_one_lane_alone(app: Application, options: Options) -> None:
    del app.lanes["speculative"]
    outcome = await calibrate(options, Client(URL, app))
    assert list(outcome.calibration.lanes) == [Lane.PLAIN]
    assert outcome.calibration.k_tiers == [0]
    assert outcome.calibration.classes == {}


async def test_limits_that_are_assumed_are_told(app: Application, options: Options) -> None:
    app.most = 16
    outcome = await calibrate(replace(options, limits=Limits()), Client(URL, app))
    assert any("--config" in remark for remark in outcome.remarks)


async def test_requests_of_others_are_told(app: Application, options: Options) -> None:
    client = Client(URL, app)
    task = asyncio.create_task(calibrate(options, client))
    await asyncio.sleep(0.2)
    app.requests += 3
    assert any(remark.startswith("3 requests of others") for remark in (await task).remarks)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"lanes": {}}, "no lane is ready"),
        ({"lanes": {"plain": {"replicas": 2}}}, "calibrate one engine a lane"),
        ({"running": Counter(plain=3)}, "3 requests of others are running"),
        ({"lanes": {"speculative": {"replicas": 1, "draft_attached": False}}}, "no draft"),
    ],
)
async def test_what_cannot_be_measured_is_one_line(
    app: Application, options: Options, change: dict[str, Any], reason: str
) -> None:
    for name, value in change.items():
        setattr(app, name, value)
    with pytest.raises(ConfigError) as caught:
        await calibrate(options, Client(URL, app))
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_more_drafts_than_the_application_makes(app: Application, options: Options) -> None:
    with pytest.raises(ConfigError, match="k = 5: the application drafts 4 tokens at most"):
        await calibrate(replace(options, tiers=(0, 5)), Client(URL, app))


async def test_an_application_that_dies_is_one_line(app: Application, options: Options) -> None:
    app.dies_after = 12
    with pytest.raises(ConfigError, match=r"one cell after another fails .*gone") as caught:
        await calibrate(options, Client(URL, app))
    assert "\n" not in str(caught.value)


async def test_a_folder_that_is_not_there_is_told_before_anything_is_measured(
    app: Application, options: Options
) -> None:
    with pytest.raises(ConfigError, match="its folder does not exist"):
        await calibrate(replace(options, out=options.out / "sub" / "c.json"), Client(URL, app))
    assert app.requests == 0


async def test_no_application(options: Options) -> None:
    with pytest.raises(ConfigError, match=r"no application answers.*serve run"):
        await calibrate(replace(options, url="http://127.0.0.1:9"))


async def test_an_application_that_breaks_says_what_it_said(
    app: Application, options: Options
) -> None:
    app.broken_after = 8
    with pytest.raises(ConfigError, match=r"one cell after another fails .*status 503"):
        await calibrate(options, Client(URL, app))


def test_samples_are_summed_by_their_labels() -> None:
    text = '# TYPE a counter\na{x="1",y="2"} 2.0\na{x="2"} 3.0\na_b{x="1"} 9.0\na 1.0\n'
    assert sample_sum(text, "a") == 6.0
    assert sample_sum(text, "a", {"x": "1"}) == 2.0
    assert sample_sum(text, "b") == 0.0
