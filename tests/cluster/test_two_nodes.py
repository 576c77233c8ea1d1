"""Two Ray nodes on one machine: engines on one, the draft on the other, which is lost and returns.

The link is gloo over TCP, as between machines without GPUs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import ray
from ray import serve
from ray.cluster_utils import Cluster

from rayspec.app import build
from tests.support.ports import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(460)]

ARGS: dict[str, Any] = {
    "model": "smollm2",
    "dtype": "float32",
    "max_model_len": 1024,
    "speculative": {
        "max_num_seqs": 8,
        "resources": {"target": 0.01},
        "env": {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "WARNING"},
    },
    "draft": {"kind": "ngram", "resources": {"draft": 0.01}},
    # What is in flight through an ingress is lost with its node.
    "ingress": {"resources": {"target": 0.01}},
}
BODY = {
    "model": "smollm2",
    "messages": [{"role": "user", "content": "Repeat ten times:\nprint('hello')\nprint('hello')"}],
    "max_tokens": 48,
    "ignore_eos": True,
    "temperature": 0,
}


class Service:
    """The application on two nodes, and a client that never stops asking it."""

    def __init__(self, cluster: Cluster, url: str) -> None:
        self.cluster = cluster
        self.url = url
        self.node: Any = None
        self.answers: list[str] = []
        self.wrong: list[str] = []
        self._stop = threading.Event()
        self._client = threading.Thread(target=self._ask)

    def __enter__(self) -> Service:
        self._client.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._client.join()

    def add_draft_node(self) -> None:
        self.node = self.cluster.add_node(num_cpus=1, resources={"draft": 1})

    def lose_draft_node(self) -> None:
        """Kill the node's processes, as when its machine is gone."""
        self.cluster.remove_node(self.node, allow_graceful=False)

    def attached(self) -> bool:
        lane = httpx.get(f"{self.url}/health", timeout=30).json()["lanes"]["speculative"]
        return bool(lane["draft_attached"])

    def metric(self, name: str) -> float:
        text = httpx.get(f"{self.url}/metrics", timeout=30).text
        lines = [line for line in text.splitlines() if line.startswith(f"{name}{{")]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def wait_for(self, condition: Callable[[], bool], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, "it does not come to that"
            time.sleep(0.5)

    def _ask(self) -> None:
        while not self._stop.is_set():
            answer = httpx.post(f"{self.url}/v1/chat/completions", json=BODY, timeout=120)
            if answer.status_code == 200:
                self.answers.append(answer.json()["choices"][0]["message"]["content"])
            else:
                self.wrong.append(answer.text)


@pytest.fixture
def service() -> Iterator[Service]:
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2, "resources": {"target": 1}}
    )
    try:
        ray.init(address=cluster.address, log_to_driver=False)
        port = free_port()
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
        found = Service(cluster, f"http://127.0.0.1:{port}")
        found.add_draft_node()
        serve.run(build(ARGS), name="rayspec")
        yield found
    finally:
        if ray.is_initialized():
            serve.shutdown()
            ray.shutdown()
        cluster.shutdown()


def where(prefix: str) -> set[str]:
    """Return the nodes of the live replicas whose class begins with `prefix`."""
    from ray.util.state import list_actors

    actors = list_actors(filters=[("state", "=", "ALIVE")], limit=1000)
    return {actor.node_id for actor in actors if f":{prefix}" in actor.class_name}


def test_requests_are_answered_while_the_drafts_node_is_lost_and_returns(service: Service) -> None:
    service.wait_for(service.attached, 60)
    assert where("Ingress") == where("SpeculativeTarget") == {service.cluster.head_node.node_id}
    assert where("Draft") == {service.node.node_id}

    with service:
        service.wait_for(lambda: len(service.answers) >= 2, 60)
        accepted = service.metric("rayspec_accepted_tokens_total")
        assert accepted > 0
        service.lose_draft_node()
        service.wait_for(lambda: not service.attached(), 60)
        answered = len(service.answers)
        service.wait_for(lambda: len(service.answers) >= answered + 3, 60)
        assert not service.attached()

        service.add_draft_node()
        service.wait_for(service.attached, 120)
        assert where("Draft") == {service.node.node_id}
        accepted = service.metric("rayspec_accepted_tokens_total")
        service.wait_for(lambda: service.metric("rayspec_accepted_tokens_total") > accepted, 60)

    assert service.wrong == []
    assert len(set(service.answers)) == 1  # drafts change no token
    assert service.metric("rayspec_link_deaths_total") >= 1
    assert service.metric("rayspec_link_attaches_total") >= 2
