"""Configuration: pydantic at the edge of the program, frozen specs inside."""

from rayspec.config.derive import derive
from rayspec.config.load import load, parse, parse_keys
from rayspec.config.schema import AppConfig
from rayspec.config.specs import (
    AppSpec,
    DraftSpec,
    IngressSpec,
    OwnDraftSpec,
    SpeculationSpec,
    TargetSpec,
    TelemetrySpec,
)

__all__ = [
    "AppConfig",
    "AppSpec",
    "DraftSpec",
    "IngressSpec",
    "OwnDraftSpec",
    "SpeculationSpec",
    "TargetSpec",
    "TelemetrySpec",
    "derive",
    "load",
    "parse",
    "parse_keys",
]
