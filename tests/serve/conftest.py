"""One application for all tests of this folder, traced and with JSON logs; it takes a minute."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
import yaml

from tests.support.application import BASE_URL, ROOT, Application
from tests.support.collector import Collector

pytestmark = pytest.mark.e2e


# Not for the session: engines that nobody asks still take processor time from other tests.
@pytest.fixture(scope="package")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    with Collector(tmp_path_factory.mktemp("collector")) as collector:
        yield collector


@pytest.fixture(scope="package")
def app(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Application]:
    folder = tmp_path_factory.mktemp("serve")
    config = yaml.safe_load((ROOT / "deployments" / "app.yaml").read_text())
    config["logging_config"]["encoding"] = "JSON"
    (folder / "app.yaml").write_text(yaml.safe_dump(config))
    env = collector.environment("http/protobuf")
    with Application(folder / "app.yaml", folder / "log", env) as application:
        yield application


@pytest.fixture
def client(app: Application) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{BASE_URL}/v1", api_key="none", max_retries=0) as client:
        yield client
