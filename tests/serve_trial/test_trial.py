"""A new version of the draft while the application serves: tried, taken over, made the draft.

The target is tiny and random, one draft another such model, and the new one the target's own.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from rayspec.cli.draft_promote import NotPromoted, promote
from rayspec.models.fetch import resolve
from tests.support.application import BASE_URL, Application
from tests.support.tiny import build_tiny

pytestmark = pytest.mark.e2e

PROMPTS = ("one two three one two", "x y z", "Repeat after me: blue blue blue", "a b")
CLASSES = ("chat", "code")
USERS = 3


class Load:
    """Users who ask without end; every answer to a prompt must be the first one."""

    def __init__(self) -> None:
        self.answers: dict[str, str] = {}
        # When each answered request was sent, and which version drafted for it, as they ended.
        self.sent: list[float] = []
        self.drafts: list[str | None] = []
        self.wrong: list[str] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._users = [threading.Thread(target=self._ask, args=(n,)) for n in range(USERS)]

    def __enter__(self) -> Load:
        for user in self._users:
            user.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for user in self._users:
            user.join()

    def drafts_from_now(self, app: Application, count: int = 20) -> set[str | None]:
        """Return which versions draft for the next requests to be sent, at least `count`."""
        now = time.monotonic()

        def drafts() -> list[str | None]:
            with self._lock:
                pairs = list(zip(self.sent, self.drafts, strict=True))
            return [draft for sent, draft in pairs if sent > now]

        app.wait_for(lambda: len(drafts()) >= count, 60)
        return set(drafts())

    def _ask(self, number: int) -> None:
        with httpx.Client(base_url=BASE_URL, timeout=120) as client:
            while not self._stop.is_set():
                number += 1
                prompt = PROMPTS[number % len(PROMPTS)]
                body = {
                    "model": "tiny",
                    "prompt": prompt,
                    "max_tokens": 24,
                    "temperature": 0,
                    "ignore_eos": True,
                    "rayspec": {"speculation": "on"},
                }
                headers = {"x-workload-class": CLASSES[number % len(CLASSES)]}
                sent = time.monotonic()
                answer = client.post("/v1/completions", json=body, headers=headers)
                if answer.status_code != 200:
                    self.wrong.append(answer.text)
                    continue
                with self._lock:
                    self.sent.append(sent)
                    self.drafts.append(answer.headers.get("x-rayspec-draft"))
                text = answer.json()["choices"][0]["text"]
                if self.answers.setdefault(prompt, text) != text:
                    self.wrong.append(f"{prompt!r} was answered {text!r}")
                time.sleep(0.02)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trial")


@pytest.fixture(scope="module")
def models(folder: Path) -> dict[str, str]:
    """Return the target, and a draft that knows nothing of it."""
    found = {}
    for seed, name in enumerate(("target", "other")):
        (folder / name).mkdir()
        found[name] = str(build_tiny(folder / name, resolve("smollm2"), seed=seed))
    return found


@pytest.fixture(scope="module")
def app(folder: Path, models: dict[str, str]) -> Iterator[Application]:
    config = {
        "proxy_location": "HeadOnly",
        "http_options": {"host": "127.0.0.1", "port": 8000},
        "applications": [
            {
                "name": "rayspec",
                "import_path": "rayspec.app:build",
                "route_prefix": "/",
                "args": {
                    "model": models["target"],
                    "served_model_name": "tiny",
                    "dtype": "float32",
                    "max_model_len": 256,
                    "speculative": {
                        "num_speculative_tokens": 3,
                        "max_num_seqs": 8,
                        "env": {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "WARNING"},
                    },
                    "draft": {"kind": "model", "model": models["other"]},
                },
            }
        ],
    }
    (folder / "app.yaml").write_text(yaml.safe_dump(config))
    with Application(folder / "app.yaml", folder / "log") as application:
        yield application


def trying(app: Application, model: str) -> dict[str, Any]:
    """Return the application with a new draft to try."""
    config = copy.deepcopy(app.config())
    draft = config["applications"][0]["args"]["draft"]
    draft["candidate"] = {"model": model, "share": 0.5, "min_requests": 10}
    return config


def trial() -> dict[str, Any] | None:
    try:
        state = httpx.get(f"{BASE_URL}/ui/state", timeout=30).raise_for_status().json()
    except httpx.HTTPError:
        return None
    found: dict[str, Any] | None = state["trial"]
    return found


def state_of_trial() -> str | None:
    found = trial()
    return None if found is None else str(found["state"])


def test_the_better_version_takes_over_and_becomes_the_draft(
    app: Application, folder: Path, models: dict[str, str]
) -> None:
    config = trying(app, models["target"])
    file = folder / "trying.yaml"
    file.write_text(yaml.safe_dump(config))
    with Load() as load:
        app.wait_for(lambda: len(load.drafts) > 5, 60)
        assert set(load.drafts) == {None}
        app.deploy(config)
        app.wait_for(lambda: state_of_trial() == "trial", 120)
        app.wait_for(lambda: state_of_trial() == "promoted", 180)
        found = trial()
        assert found is not None
        assert found["tokens_per_step"]["low"] > 0
        assert found["classes"].keys() == set(CLASSES)
        assert min(found["requests"].values()) >= 10
        assert app.metric("rayspec_trial_state", state="promoted") == 1
        assert load.drafts_from_now(app) == {"candidate"}

        promote(file)
        assert app.replicas().keys() == {"Ingress", "SpeculativeTarget", "Draft"}
        name = "rayspec_position_accepted_tokens_total"
        accepted = app.metric(name)
        assert load.drafts_from_now(app) == {None}
        app.wait_for(lambda: app.metric(name) > accepted, 30)
    assert load.wrong == []


def test_a_worse_version_is_rolled_back_and_not_promoted(
    app: Application, folder: Path, models: dict[str, str]
) -> None:
    config = app.config()
    config["applications"][0]["args"]["draft"]["model"] = models["target"]
    (folder / "app.yaml").write_text(yaml.safe_dump(config))
    file = folder / "worse.yaml"
    file.write_text(yaml.safe_dump(trying(app, models["other"])))
    with Load() as load:
        app.deploy(trying(app, models["other"]))
        app.wait_for(lambda: state_of_trial() == "rolled_back", 240)
        assert load.drafts_from_now(app) == {None}
    assert load.wrong == []
    with pytest.raises(NotPromoted, match=r"rolled back after .* tokens a step"):
        promote(file)


def test_a_version_of_other_tokens_never_drafts(
    app: Application, folder: Path, models: dict[str, str]
) -> None:
    (folder / "foreign").mkdir()
    foreign = build_tiny(folder / "foreign", resolve("smollm2"), vocab_size=49160)
    with Load() as load:
        app.deploy(trying(app, str(foreign)))
        app.wait_for(lambda: "draft.candidate.model" in app.printed(), 180)
        assert load.drafts_from_now(app) == {None}
    assert load.wrong == []
