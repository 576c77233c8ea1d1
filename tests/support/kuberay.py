"""Whether Kubernetes would take a RayService: which fields there are, and of what type.

The custom resource definition of KubeRay (Apache-2.0, `ray.io/v1`) is a frame around copies of
Kubernetes' pod template. The frame is written down here, with the fields that KubeRay's API types
name; the templates are checked against Kubernetes' own published schemas, which the package
`kubernetes-validate` has. With a file of the definition itself, `check_against` checks all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema
import kubernetes_validate

__all__ = ["KUBERNETES", "check", "check_against"]

KUBERNETES = "1.34"


def _fields(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(required),
        "properties": properties,
    }


_TEXT = {"type": "string"}
_BOOL = {"type": "boolean"}
_COUNT = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
# Ray's parameters and resources are text even where they are numbers.
_TEXTS = {"type": "object", "additionalProperties": _TEXT}
_KUBERNETES = {"type": "object"}  # checked by itself

_HEAD = _fields(
    ("template",),
    template=_KUBERNETES,
    headService=_KUBERNETES,
    enableIngress=_BOOL,
    rayStartParams=_TEXTS,
    resources=_TEXTS,
    labels=_TEXTS,
    serviceType=_TEXT,
)
_WORKERS = _fields(
    ("groupName", "minReplicas", "maxReplicas", "template"),
    groupName=_TEXT,
    replicas=_COUNT,
    minReplicas=_COUNT,
    maxReplicas=_COUNT,
    numOfHosts=_COUNT,
    idleTimeoutSeconds=_COUNT,
    suspend=_BOOL,
    rayStartParams=_TEXTS,
    resources=_TEXTS,
    labels=_TEXTS,
    scaleStrategy=_fields(workersToDelete={"type": "array", "items": _TEXT}),
    template=_KUBERNETES,
)
_CLUSTER = _fields(
    ("headGroupSpec",),
    headGroupSpec=_HEAD,
    workerGroupSpecs={"type": "array", "items": _WORKERS},
    rayVersion=_TEXT,
    authOptions=_fields(mode={"enum": ["disabled", "token"]}, secretName=_TEXT),
    enableInTreeAutoscaling=_BOOL,
    headServiceAnnotations=_TEXTS,
    managedBy=_TEXT,
    suspend=_BOOL,
    autoscalerOptions=_KUBERNETES,
    gcsFaultToleranceOptions=_KUBERNETES,
)
_SERVICE = _fields(
    ("rayClusterConfig",),
    serveConfigV2=_TEXT,
    rayClusterConfig=_CLUSTER,
    serveService=_KUBERNETES,
    upgradeStrategy=_fields(type={"enum": ["NewCluster", "None"]}),
    rayClusterDeletionDelaySeconds=_COUNT,
    excludeHeadPodFromServeSvc=_BOOL,
)
_FRAME = _fields(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayService"},
    metadata=_fields(("name",), name=_TEXT, namespace=_TEXT, labels=_TEXTS, annotations=_TEXTS),
    spec=_SERVICE,
)


def check(resource: Mapping[str, Any]) -> None:
    """Raise where `resource` has a field that is not there, lacks one, or has a wrong type."""
    jsonschema.validate(resource, _FRAME)
    for name, template in templates(resource):
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name} | template.get("metadata", {}),
            "spec": template["spec"],
        }
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def templates(resource: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the pod templates by the name of their group."""
    cluster = resource["spec"]["rayClusterConfig"]
    yield "head", cluster["headGroupSpec"]["template"]
    for group in cluster.get("workerGroupSpecs", ()):
        yield group["groupName"], group["template"]


def check_against(definition: Mapping[str, Any], resource: Mapping[str, Any]) -> None:
    """Raise where `resource` is not what a custom resource definition says, unknown fields too."""
    version = resource["apiVersion"].partition("/")[2]
    (schema,) = (
        each["schema"]["openAPIV3Schema"]
        for each in definition["spec"]["versions"]
        if each["name"] == version
    )
    jsonschema.validate(resource, _strict(schema))


def _strict(schema: Any) -> Any:
    """Return a schema of Kubernetes as one of JSON: closed, and with its own words translated."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return {}
    closed = {
        key: {name: _strict(each) for name, each in value.items()}
        if key == "properties"
        else _strict(value)
        for key, value in schema.items()
        if key not in ("description", "default", "format")
    }
    # Of every object the server knows these; it prunes what it does not know, silently.
    if "properties" in closed and "additionalProperties" not in closed and closed["properties"]:
        closed["additionalProperties"] = False
    return closed
