"""One application for all tests of this folder; it takes a minute to start."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from tests.support.application import BASE_URL, Application
from tests.support.collector import Collector

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="session")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    with Collector(tmp_path_factory.mktemp("collector")) as collector:
        yield collector


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Application]:
    log = tmp_path_factory.mktemp("serve") / "log"
    env = collector.environment("http/protobuf") | {"RAY_SERVE_LOG_ENCODING": "JSON"}
    with Application("app.yaml", log, env) as application:
        yield application


@pytest.fixture
def client(app: Application) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{BASE_URL}/v1", api_key="none", max_retries=0) as client:
        yield client
