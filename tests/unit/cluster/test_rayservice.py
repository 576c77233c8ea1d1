"""The example for KubeRay: Kubernetes would take it, and rayspec what is in it."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from rayspec.config import derive, load
from tests.support.application import ROOT
from tests.support.kuberay import check, check_against, templates

FILE = ROOT / "cluster" / "rayservice.yaml"
TWO_NODES = ROOT / "cluster" / "two-nodes.yaml"


@pytest.fixture
def resource() -> Any:
    return yaml.safe_load(FILE.read_text())


def cluster(resource: Any) -> Any:
    return resource["spec"]["rayClusterConfig"]


def test_kubernetes_would_take_it(resource: Any) -> None:
    check(resource)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "serveConfig"), "x"),
        (("spec", "rayClusterConfig", "headGroupSpec", "rayStartParams", "num-cpus"), 4),
        (("spec", "rayClusterConfig", "workerGroupSpecs", 0, "minReplicas"), "1"),
        (("spec", "rayClusterConfig", "headGroupSpec", "template", "spec", "container"), []),
        (
            (
                "spec",
                "rayClusterConfig",
                "workerGroupSpecs",
                0,
                "template",
                "spec",
                "containers",
                0,
                "resource",
            ),
            {},
        ),
    ],
)
def test_a_mistake_is_seen(resource: Any, path: tuple[Any, ...], value: Any) -> None:
    wrong = copy.deepcopy(resource)
    inner = wrong
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        check(wrong)


def test_it_is_what_kuberays_own_definition_says(resource: Any) -> None:
    """`kubectl get crd rayservices.ray.io -o yaml > FILE`, or the file of KubeRay's Helm chart."""
    if (file := os.environ.get("KUBERAY_CRD")) is None:
        pytest.skip("needs KubeRay's definition of RayService: set KUBERAY_CRD to its file")
    check_against(yaml.safe_load(Path(file).read_text()), resource)


@pytest.mark.parametrize("wrong", [{"ports": [1.5]}, {"port": 1}, {"free": 3, "ports": "x"}])
def test_a_definition_is_read_as_kubernetes_means_it(wrong: dict[str, Any]) -> None:
    port = {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}]}
    spec = {
        "type": "object",
        "properties": {
            "ports": {"type": "array", "items": port},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        },
    }
    whole = {"type": "object", "properties": {"apiVersion": {"type": "string"}, "spec": spec}}
    definition = {
        "spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": whole}}]},
    }
    right = {"ports": [1, "http"], "free": {"anything": 1}}
    check_against(definition, {"apiVersion": "ray.io/v1", "spec": right})
    with pytest.raises(jsonschema.ValidationError):
        check_against(definition, {"apiVersion": "ray.io/v1", "spec": wrong})


def test_it_serves_what_two_nodes_yaml_does(resource: Any) -> None:
    inside = yaml.safe_load(resource["spec"]["serveConfigV2"])
    alone = yaml.safe_load(TWO_NODES.read_text())
    assert inside["applications"] == alone["applications"]
    assert inside["http_options"]["host"] == "0.0.0.0"


def test_nodes_have_what_lanes_and_draft_take(resource: Any) -> None:
    app = derive(load(TWO_NODES), has_gpu=True)
    assert app.speculative is not None
    assert app.plain is not None
    assert app.draft is not None
    assert app.speculative.speculation is not None
    assert app.speculative.speculation.transport == "nccl"
    groups = [cluster(resource)["headGroupSpec"], *cluster(resource)["workerGroupSpecs"]]
    # The value is a word of a shell's command line, and in it JSON.
    given = [json.loads(json.loads(group["rayStartParams"]["resources"])) for group in groups]
    engines = (app.speculative, app.plain)
    assert given == [{"target": 1}, {"draft": 1}]
    for spec in (*engines, app.ingress):
        assert spec.resources == {"target": 0.01}
    assert app.draft.resources == {"draft": 0.01}
    gpus = [
        int(template["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])
        for _, template in templates(resource)
    ]
    assert gpus == [sum(each.num_gpus for each in engines), app.draft.num_gpus]


def test_nobody_is_root(resource: Any) -> None:
    for _, template in templates(resource):
        assert template["spec"]["securityContext"]["runAsNonRoot"] is True
        (container,) = template["spec"]["containers"]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]


def test_ray_is_the_version_that_is_locked(resource: Any) -> None:
    lock = (ROOT / "requirements" / "cuda.txt").read_text().splitlines()
    assert f"ray=={cluster(resource)['rayVersion']}" in lock
