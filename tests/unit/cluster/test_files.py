"""The files of cluster/ fit each other and the project; none is run here."""

from __future__ import annotations

import re
import shlex
import subprocess
from typing import Any

import pytest
import yaml

from rayspec.config import load
from rayspec.priority import NICENESS
from tests.support.application import ROOT

CLUSTER = ROOT / "cluster"
SCRIPTS = sorted(CLUSTER.glob("*.sh"))


def environment() -> dict[str, str]:
    """Return what a shell makes of the environment file."""
    command = "env -i HOME=/home/u bash -c 'set -a; source cluster.env; env -0'"
    done = subprocess.run(command, shell=True, cwd=CLUSTER, capture_output=True, check=True)
    pairs = (each.split("=", 1) for each in done.stdout.decode().split("\0") if each)
    return dict(pair for pair in pairs if len(pair) == 2)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_is_one_and_uses_only_what_the_environment_file_sets(script: Any) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    assert script.stat().st_mode & 0o111
    text = script.read_text()
    used = set(re.findall(r"\$\{?([A-Z_]{3,})(?!\S*:-)", text)) - {"BASH_SOURCE"}
    optional = set(re.findall(r"\$\{([A-Z_]+):-", text))
    assert used - optional <= set(environment())


def test_the_environment_file_names_what_is_there() -> None:
    values = environment()
    load(ROOT / values["APP"])
    assert values["HEAD_RESOURCES"] == '{"target": 1}'
    assert values["RAY_AUTH_TOKEN_PATH"] == "/home/u/.ray/auth_token"
    assert "HF_TOKEN" not in values  # a secret is not to be committed by filling in a blank


def test_ray_starts_what_serves_at_the_priority_of_any_other_process() -> None:
    assert environment()[NICENESS] == "0"
    assert f" {NICENESS}=0 " in (CLUSTER / "Dockerfile").read_text()


def test_the_image_is_not_run_by_root_and_has_the_lock() -> None:
    lines = (CLUSTER / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER")]
    assert users
    assert users[-1] not in ("0", "root")
    assert any("--no-deps -r requirements/cuda.txt" in line for line in lines)


def test_what_the_image_copies_is_there_and_not_ignored() -> None:
    kept = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    for line in (CLUSTER / "Dockerfile").read_text().splitlines():
        if not line.startswith("COPY"):
            continue
        *sources, _ = (word for word in shlex.split(line)[1:] if not word.startswith("--"))
        for source in sources:
            assert (ROOT / source).exists(), source
            assert source in kept, source


@pytest.mark.parametrize("name", ["container.yaml", "two-nodes.yaml"])
def test_applications_are_valid(name: str) -> None:
    load(CLUSTER / name)


def test_the_container_serves_what_the_two_gpu_example_does() -> None:
    container = yaml.safe_load((CLUSTER / "container.yaml").read_text())
    example = yaml.safe_load((ROOT / "deployments" / "gpu-2.yaml").read_text())
    assert container["applications"] == example["applications"]
    assert container["http_options"]["host"] == "0.0.0.0"


def test_compose_mounts_what_is_there_and_publishes_on_this_machine_only() -> None:
    compose = yaml.safe_load((CLUSTER / "compose.yaml").read_text())
    for service in compose["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (CLUSTER / source).exists(), source
            else:
                assert source in compose["volumes"]
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:")


def test_what_talks_to_each_other_agrees_where() -> None:
    compose = yaml.safe_load((CLUSTER / "compose.yaml").read_text())
    services = compose["services"]
    (job,) = yaml.safe_load((CLUSTER / "prometheus.yaml").read_text())["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    host, port = target.split(":")
    served = yaml.safe_load((CLUSTER / "container.yaml").read_text())["http_options"]
    assert host in services
    assert int(port) == served["port"]
    collector = yaml.safe_load((CLUSTER / "otel-collector.yaml").read_text())
    endpoint = services["rayspec"]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"]
    name, port = endpoint.removeprefix("http://").split(":")
    assert name in services
    grpc = collector["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"]
    assert grpc.endswith(f":{port}")
    for pipeline in collector["service"]["pipelines"].values():
        for kind in ("receivers", "processors", "exporters"):
            assert set(pipeline[kind]) <= set(collector[kind])
