from __future__ import annotations

import pytest

from rayspec.errors import ConfigError
from rayspec.telemetry import environment

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACES = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"
OF_TRACES = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
EXPORTER = "OTEL_TRACES_EXPORTER"
SAMPLER = "OTEL_TRACES_SAMPLER"


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, ()),
        ({PROTOCOL: "grpc"}, ()),
        ({ENDPOINT: "http://c:4317"}, ("otlp_proto_grpc",)),
        ({ENDPOINT: "http://c:4318", PROTOCOL: "http/protobuf"}, ("otlp_proto_http",)),
        ({TRACES: "http://c", PROTOCOL: "grpc", OF_TRACES: "http/protobuf"}, ("otlp_proto_http",)),
        ({EXPORTER: "otlp"}, ("otlp_proto_grpc",)),
        ({EXPORTER: "console, otlp"}, ("console", "otlp_proto_grpc")),
        ({EXPORTER: "none", ENDPOINT: "http://c"}, ()),
        ({ENDPOINT: "http://c", "OTEL_SDK_DISABLED": "True"}, ()),
    ],
)
def test_exporters_are_those_that_are_asked_for(
    env: dict[str, str], expected: tuple[str, ...]
) -> None:
    assert environment.exporters(env) == expected


def test_a_protocol_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^OTEL_EXPORTER_OTLP_PROTOCOL = .*http/json.*use one"):
        environment.exporters({ENDPOINT: "http://c", PROTOCOL: "http/json"})


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, None),
        ({EXPORTER: "console"}, None),
        ({EXPORTER: "otlp"}, "http://localhost:4317"),
        ({ENDPOINT: "http://c:4317"}, "http://c:4317"),
        ({EXPORTER: "otlp", PROTOCOL: "http/protobuf"}, "http://localhost:4318/v1/traces"),
        ({ENDPOINT: "http://c:4318/", PROTOCOL: "http/protobuf"}, "http://c:4318/v1/traces"),
        (
            {TRACES: "http://c/here", ENDPOINT: "http://d", PROTOCOL: "http/protobuf"},
            "http://c/here",
        ),
    ],
)
def test_the_engine_is_told_the_whole_address(env: dict[str, str], expected: str | None) -> None:
    assert environment.engine_endpoint(env) == expected


@pytest.mark.parametrize(
    ("env", "ratio"),
    [
        ({}, "1"),
        ({SAMPLER: "always_off"}, "0"),
        ({SAMPLER: "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"}, "0.1"),
        ({SAMPLER: "traceidratio"}, "1"),
    ],
)
def test_serve_samples_as_the_standard_variables_say(env: dict[str, str], ratio: str) -> None:
    found = environment.for_serve({ENDPOINT: "http://c", **env})
    assert found["RAY_SERVE_TRACING_SAMPLING_RATIO"] == ratio
    assert found["RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH"].startswith("rayspec.telemetry.export:")


def test_serve_is_left_alone_without_an_exporter_and_where_it_is_told() -> None:
    assert environment.for_serve({}) == {}
    own = {"RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH": "mine:mine"}
    assert "RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH" not in environment.for_serve(
        {ENDPOINT: "http://c", **own}
    )


@pytest.mark.parametrize(
    "env", [{"OTEL_SERVICE_NAME": "x"}, {"OTEL_RESOURCE_ATTRIBUTES": "a=b,service.name=x"}]
)
def test_a_service_name_that_is_given_is_kept(env: dict[str, str]) -> None:
    assert environment.service_name({}) == "rayspec"
    assert environment.service_name(env) is None
