"""What the standard `OTEL_*` environment variables ask for: which exporters of spans, and where.

Tracing is on exactly where one of them asks for it. An endpoint alone means OTLP; the protocol is
gRPC unless set, as in the Python SDK and in vLLM.
"""

from __future__ import annotations

from collections.abc import Mapping

from rayspec.errors import ConfigError

__all__ = ["engine_endpoint", "exporters", "for_serve", "otlp_protocol", "service_name"]

_EXPORTER = "OTEL_TRACES_EXPORTER"
_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_TRACES_ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
# The exporters' names among the entry points `opentelemetry_traces_exporter`, and what they call.
_OTLP = {
    "grpc": ("otlp_proto_grpc", "http://localhost:4317"),
    "http/protobuf": ("otlp_proto_http", "http://localhost:4318"),
}
# `component:function` that Serve calls in every process of its own for span processors.
_SERVE_HOOK = "rayspec.telemetry.export:span_processors"


def exporters(env: Mapping[str, str]) -> tuple[str, ...]:
    """Return the span exporters to use, by entry point name; none if nothing asks for any.

    Raises `ConfigError` for an OTLP protocol that does not exist.
    """
    if env.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ()
    named = env.get(_EXPORTER, "").strip()
    if not named and (env.get(_ENDPOINT) or env.get(_TRACES_ENDPOINT)):
        named = "otlp"
    names = [name.strip() for name in named.split(",")]
    return tuple(
        _OTLP[otlp_protocol(env)][0] if name == "otlp" else name
        for name in names
        if name and name != "none"
    )


def otlp_protocol(env: Mapping[str, str]) -> str:
    """Return how OTLP is spoken: `grpc` or `http/protobuf`."""
    for variable in _PROTOCOLS:
        if value := env.get(variable, "").strip():
            if value not in _OTLP:
                raise ConfigError(variable, value, f"use one of {', '.join(_OTLP)}")
            return value
    return "grpc"


def engine_endpoint(env: Mapping[str, str]) -> str | None:
    """Return the `otlp_traces_endpoint` of a vLLM engine; None where it should not trace."""
    name, default = _OTLP[otlp_protocol(env)]
    if name not in exporters(env):
        return None
    if own := env.get(_TRACES_ENDPOINT):
        return own
    base = env.get(_ENDPOINT) or default
    # The variable for all signals is a base URL with HTTP, and the whole address with gRPC.
    return f"{base.rstrip('/')}/v1/traces" if name == "otlp_proto_http" else base


def service_name(env: Mapping[str, str]) -> str | None:
    """Return the name to go by, None where the environment gives one."""
    given = env.get("OTEL_SERVICE_NAME") or "service.name=" in env.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    return None if given else "rayspec"


def for_serve(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that make Serve's proxy and routers trace too; they win if set.

    They belong to the environment in which Ray starts: a proxy reads them before it knows of any
    application. Serve has a sampling ratio of its own, 1 % by default.
    """
    if not exporters(env):
        return {}
    ratio = {"always_off": "0", "parentbased_always_off": "0"}.get(
        env.get("OTEL_TRACES_SAMPLER", ""), "1"
    )
    if "traceidratio" in env.get("OTEL_TRACES_SAMPLER", ""):
        ratio = env.get("OTEL_TRACES_SAMPLER_ARG", "1")
    ours = {
        "RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH": _SERVE_HOOK,
        "RAY_SERVE_TRACING_SAMPLING_RATIO": ratio,
    }
    return {name: value for name, value in ours.items() if name not in env}
