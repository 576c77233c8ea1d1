"""The OpenAPI document of what is served: vLLM's own types, and what rayspec adds to them.

Pure. Requests and answers are vLLM's, so its document describes them; only what the ingress itself
reads, refuses and tells is written here. Field names as of vLLM 0.32.0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from fnmatch import fnmatchcase
from typing import Any

from rayspec import __version__
from rayspec.ingress.classify import CLASS_HEADER
from rayspec.ingress.request import LANE_HEADER, SPECULATION_HEADER

__all__ = ["RELAYED", "document"]

RELAYED = ("/v1/chat/completions", "/v1/completions", "/v1/models", "/tokenize", "/detokenize")

_REF = "#/components/schemas/"
_CLASS_PATTERN = "^[a-z0-9_-]{1,32}$"
_SPECULATION = {"type": "string", "enum": ["on", "off", "auto"]}
_LANE = "The lane by its name."
_REFUSALS = {
    "400": "Bad request",
    "401": "No API key, or an unknown one, where keys are configured",
    "404": "Unknown model",
    "408": "The request did not come in in time",
    "413": "The request body is too large",
    "429": "Every engine is full, or the API key has used what it may; see `Retry-After`",
    "503": "Nothing can serve the request now",
    "504": "Not answered, or not begun, in time",
}
_TELLS = {
    "x-rayspec-lane": "The lane that answered: `speculative` or `plain`.",
    "x-rayspec-class": "The workload class of the request.",
    "x-rayspec-reason": "The rule that chose the lane, and the numbers it looked at.",
    "x-request-id": "The id that is in the logs.",
}


def document(
    theirs: Mapping[str, Any],
    ours: Mapping[str, Any],
    *,
    model: str,
    k_max: int,
    keys: bool,
    open_paths: Sequence[str],
    lanes: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the document of the ingress, from vLLM's and from the one of the ingress's own routes.

    `model` is the name in requests, `k_max` the most draft tokens one may ask for; `keys` tells
    that all but `open_paths` need an API key. `lanes` are those that may be asked for by name.
    """
    paths = {path: deepcopy(theirs["paths"][path]) for path in RELAYED if path in theirs["paths"]}
    schemas = deepcopy(theirs.get("components", {}).get("schemas", {}))
    schemas["RayspecOptions"] = _options(k_max, lanes)
    for operation in _operations(paths):
        _relay(operation, lanes)
    for schema in [schemas[name] for name in _requests(paths, schemas)]:
        _extend(schema, model)
    paths |= deepcopy(dict(ours.get("paths", {})))
    schemas |= ours.get("components", {}).get("schemas", {})
    components: dict[str, Any] = {"schemas": _reachable(paths, schemas)}
    if keys:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, item in paths.items():
            if not any(fnmatchcase(path, pattern) for pattern in open_paths):
                for operation in _operations({path: item}):
                    operation["security"] = [{"key": []}]
    return {
        "openapi": theirs.get("openapi", "3.1.0"),
        "info": {
            "title": "rayspec",
            "version": __version__,
            "description": "vLLM's OpenAI interface, served with distributed speculative decoding.",
        },
        "paths": paths,
        "components": components,
    }


def _options(k_max: int, lanes: Sequence[str]) -> dict[str, Any]:
    named = {"lane": _named(lanes) | {"description": _LANE}} if lanes else {}
    return {
        "title": "RayspecOptions",
        "type": "object",
        "description": "What a request chooses for itself; never changes its tokens.",
        "additionalProperties": False,
        "properties": {
            "speculation": _SPECULATION | {"description": "The lane: with drafts or without."},
            "k": {
                "type": "integer",
                "minimum": 0,
                "maximum": k_max,
                "description": "Most draft tokens per step.",
            },
            **named,
        },
    }


def _named(lanes: Sequence[str]) -> dict[str, Any]:
    return {"type": "string", "enum": [str(lane) for lane in lanes]}


def _relay(operation: dict[str, Any], lanes: Sequence[str]) -> None:
    """Add the headers that the ingress reads and tells, and the answers that it gives itself."""
    if "requestBody" in operation:
        operation.setdefault("parameters", []).extend(
            (
                _header(SPECULATION_HEADER, _SPECULATION, "The lane; wins over the body."),
                _header(
                    CLASS_HEADER,
                    {"type": "string", "pattern": _CLASS_PATTERN},
                    "The workload class, instead of the recognised one.",
                ),
            )
        )
        if lanes:
            operation["parameters"].append(
                _header(LANE_HEADER, _named(lanes), f"{_LANE} Wins over the body.")
            )
    responses = operation["responses"]
    responses.pop("422", None)  # vLLM answers 400 there
    responses["200"]["headers"] = {
        name: {"description": text, "schema": {"type": "string"}} for name, text in _TELLS.items()
    }
    if lanes:
        told = ", ".join(f"`{lane}`" for lane in lanes)
        responses["200"]["headers"][LANE_HEADER]["description"] = f"The lane that answered: {told}."
    for status, text in _REFUSALS.items():
        content = {"application/json": {"schema": {"$ref": f"{_REF}ErrorResponse"}}}
        responses[status] = {"description": text, "content": content}


def _header(name: str, schema: Mapping[str, Any], text: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "schema": dict(schema), "description": text}


def _extend(schema: dict[str, Any], model: str) -> None:
    """Add to a request's schema what it may say to rayspec, and which model there is."""
    properties = schema["properties"]
    named = {"anyOf": [{"type": "string", "enum": [model]}, {"type": "null"}]}
    properties["model"] = properties["model"] | named
    properties["rayspec"] = {"$ref": f"{_REF}RayspecOptions"}
    properties["metadata"] = {
        "description": "Of its entries only the workload class is read.",
        "anyOf": [
            {
                "type": "object",
                "properties": {"workload_class": {"type": "string", "pattern": _CLASS_PATTERN}},
            },
            {"type": "null"},
        ],
    }


def _requests(paths: Mapping[str, Any], schemas: Mapping[str, Any]) -> set[str]:
    """Name the schemas of request bodies."""
    bodies = [operation.get("requestBody", {}) for operation in _operations(paths)]
    tops = [body["content"]["application/json"]["schema"] for body in bodies if body]
    named = {ref for top in tops for one in (top, *top.get("anyOf", ())) if (ref := _name(one))}
    return {name for name in named if "model" in schemas[name].get("properties", {})}


def _operations(paths: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for item in paths.values():
        yield from (item[method] for method in ("get", "post") if method in item)


def _reachable(paths: Mapping[str, Any], schemas: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schemas that `paths` refer to, over any number of steps."""
    found: dict[str, Any] = {}
    pending = list(_refs(paths))
    while pending:
        name = pending.pop()
        if name not in found:
            found[name] = schemas[name]
            pending.extend(_refs(schemas[name]))
    return dict(sorted(found.items()))


def _refs(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if name := _name(value):
            yield name
        for part in value.values():
            yield from _refs(part)
    elif isinstance(value, list):
        for part in value:
            yield from _refs(part)


def _name(value: Mapping[str, Any]) -> str | None:
    ref = value.get("$ref")
    return ref.removeprefix(_REF) if isinstance(ref, str) else None
