"""What surrounds the cells of a calibration: its partial file, limits, picture and command."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from rayspec.cli import main
from rayspec.config import parse
from rayspec.errors import ConfigError
from rayspec.planning import calibrate_app
from rayspec.planning.calibrate_app import StartedApp
from rayspec.planning.calibrate_cells import ClassCell, PrefillCell, StepCell
from rayspec.planning.calibrate_limits import LaneLimits, Limits, limits_of
from rayspec.planning.calibrate_partial import PartialFile
from rayspec.planning.calibrate_plot import crossover, draw
from rayspec.planning.calibration import Calibration, ClassProfile, LaneProfile, PrefillFit, Step
from rayspec.routing.types import Lane

CELL = StepCell(Lane.PLAIN, 4, 0, 128)


def lane(plain: bool, draft_price: float = 0.0) -> LaneProfile:
    tiers = (0,) if plain else (0, 4)
    steps = [
        Step(batch=batch, k=k, context=128, seconds=0.01 + 0.001 * batch * (1 + draft_price * k))
        for batch in (1, 4, 16)
        for k in tiers
    ]
    return LaneProfile(
        steps=steps, prefill=PrefillFit(base_s=0.01, per_token_s=1e-4), max_num_seqs=16
    )


def calibration(draft_price: float) -> Calibration:
    return Calibration(
        created="2026-01-01T00:00:00+00:00",
        model="tiny",
        draft="ngram",
        k_tiers=[4],
        lanes={Lane.PLAIN: lane(True), Lane.SPECULATIVE: lane(False, draft_price)},
        classes={
            "code": ClassProfile(acceptance=[0.8]),
            "chat": ClassProfile(acceptance=[0.0]),
        },
    )


def test_results_are_kept_between_runs(tmp_path: Path) -> None:
    out = tmp_path / "calibration.json"
    first = PartialFile(out, {"model": "tiny", "lanes": (Lane.PLAIN,)})
    assert first.get(CELL) is None
    first.put(CELL, {"drafts": 0.0})
    first.put(ClassCell("code"), {"failed": "status 503"})
    again = PartialFile(out, {"model": "tiny", "lanes": (Lane.PLAIN,)})
    assert again.get(CELL) == {"drafts": 0.0}
    assert again.get(StepCell(Lane.PLAIN, 4, 0, 128, round=1)) is None
    # What failed is tried again.
    assert again.get(ClassCell("code")) is None
    assert PartialFile(out, {"model": "other", "lanes": (Lane.PLAIN,)}).get(CELL) is None
    again.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"cells": {}}', '{"identity": {}}'])
def test_a_partial_file_that_is_not_ours_is_written_anew(tmp_path: Path, content: str) -> None:
    path = tmp_path / "calibration.json.cells"
    path.write_text(content)
    file = PartialFile(tmp_path / "calibration.json", {})
    assert len(file) == 0
    cell = PrefillCell(Lane.PLAIN, (1, 2))
    file.put(cell, {"points": [[1, 0.5, 0.4]]})
    assert PartialFile(tmp_path / "calibration.json", {}).get(cell) == {"points": [[1, 0.5, 0.4]]}


def test_limits_are_those_of_the_configuration() -> None:
    gpus: dict[str, Any] = {"tensor_parallel_size": 2}
    config = parse(
        {
            "model": "some/model",
            "device": "cuda",
            "plain": {"max_num_seqs": 32, "engine_args": {"max_num_batched_tokens": 8192}} | gpus,
            "speculative": {"max_num_seqs": 8} | gpus,
            "draft": {"kind": "model", "model": "some/draft"},
        }
    )
    limits = limits_of(config, has_gpu=True)
    assert limits == Limits(
        {Lane.PLAIN: LaneLimits(32, 8192, 2), Lane.SPECULATIVE: LaneLimits(8, 2048, 3)},
        "model draft",
        known=True,
    )
    assert Limits().of(Lane.PLAIN) == LaneLimits(16, 2048, 0)


def test_speculation_that_costs_nothing_pays_at_every_load() -> None:
    known = calibration(draft_price=0.0)
    found = crossover(known, known.classes["code"])
    assert list(found.batches) == list(range(1, 17))
    assert found.at is None
    assert all(s < p for s, p in zip(found.speculative, found.plain, strict=True))


def test_drafts_that_are_never_accepted_never_pay() -> None:
    known = calibration(draft_price=0.5)
    assert crossover(known, known.classes["chat"]).at == 1


def test_the_crossover_is_where_the_lanes_cost_the_same() -> None:
    known = calibration(draft_price=2.0)
    at = crossover(known, known.classes["code"]).at
    # 0.01 + 0.009 b over 3.3616 tokens against 0.01 + 0.001 b.
    assert at == 5


def test_a_picture_for_every_class(tmp_path: Path) -> None:
    path = tmp_path / "crossover.png"
    draw(calibration(draft_price=2.0), path)
    assert path.read_bytes().startswith(b"\x89PNG")
    alone = calibration(0.0).model_copy(update={"lanes": {Lane.PLAIN: lane(True)}})
    with pytest.raises(ConfigError, match="needs both lanes"):
        draw(alone, path)


def run(monkeypatch: pytest.MonkeyPatch, *args: str) -> object:
    monkeypatch.setattr(sys, "argv", ["rayspec", "calibrate", *args])
    with pytest.raises(SystemExit) as exited:
        main()
    return exited.value.code


def test_no_application_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = str(tmp_path / "calibration.json")
    assert run(monkeypatch, "--url", "http://127.0.0.1:9", "--out", out) == 1
    told = capsys.readouterr()
    assert told.out == ""
    (line,) = told.err.splitlines()
    assert line.startswith("rayspec: url = 'http://127.0.0.1:9': no application answers")


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["--app", "a.yaml", "--config", "b.yaml"], "give either --app or --config"),
        (["--k", "1,x"], "numbers with commas"),
        (["--k=-1"], "draft lengths are not"),
        (["--budget-s", "0"], "budget-s"),
    ],
)
def test_wrong_usage(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    args: list[str],
    reason: str,
) -> None:
    assert run(monkeypatch, "--out", "c.json", *args) == 2
    assert reason in capsys.readouterr().err


PROGRAM = """#!{python}
import http.server, json, pathlib, socketserver, sys

class Health(http.server.BaseHTTPRequestHandler):
    asked = 0

    def do_GET(self):
        Health.asked += 1
        lane = {{"replicas": int(Health.asked > 1), "draft_attached": Health.asked > 2}}
        body = json.dumps({{"lanes": {{"speculative": lane}}}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass

pathlib.Path({told!r}).write_text(" ".join(sys.argv[1:]))
try:
    socketserver.TCPServer(("127.0.0.1", {port}), Health).serve_forever()
except KeyboardInterrupt:
    pathlib.Path({told!r}).write_text("stopped")
"""


def test_an_application_is_started_awaited_and_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url, told = f"http://127.0.0.1:{port}", tmp_path / "told"
    program = tmp_path / "program"
    program.write_text(PROGRAM.format(python=sys.executable, told=str(told), port=port))
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(calibrate_app, "_POLL_S", 0.01)
    file = tmp_path / "app.yaml"
    with StartedApp(file, url):
        assert told.read_text() == f"-m rayspec.planning.serve_run run {file}"
        lanes = httpx.get(f"{url}/health").json()["lanes"]
        assert lanes["speculative"]["draft_attached"]
        with pytest.raises(ConfigError, match="an application runs at"), StartedApp(file, url):
            pass
    assert told.read_text() == "stopped"


def test_an_application_that_cannot_start_says_where_its_output_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    file = tmp_path / "app.yaml"
    with pytest.raises(ConfigError) as caught, StartedApp(file, "http://127.0.0.1:9"):
        pass
    assert "ended while it started; its output is in" in str(caught.value)
