"""Types that several parts of the configuration share."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from rayspec.routing.types import valid_class_name

_RAYS_OWN = ("CPU", "GPU", "memory", "object_store_memory")


class Section(BaseModel):
    """A part of the configuration: unknown fields and silent conversions are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _on_off(value: Any) -> Any:
    # YAML 1.1 reads a bare `on` or `off` as a boolean.
    if isinstance(value, bool):
        return "on" if value else "off"
    return value


def _class_name(value: str) -> str:
    if not valid_class_name(value):
        raise ValueError("use 1 to 32 characters of a-z, 0-9, _ and -")
    return value


def _resources(value: dict[str, float]) -> dict[str, float]:
    for name, amount in value.items():
        if name in _RAYS_OWN:
            raise ValueError(f"{name}: use a name of your own; Ray counts this one itself")
        if not name or amount <= 0:
            raise ValueError(f"{name or 'name'}: write a name and an amount above 0")
    return value


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as exc:
        raise ValueError(f"write a valid regular expression ({exc})") from exc
    return value


Speculation = Annotated[Literal["on", "off", "auto"], BeforeValidator(_on_off)]
Switch = Annotated[Literal["auto", "on", "off"], BeforeValidator(_on_off)]
ClassName = Annotated[str, AfterValidator(_class_name)]
Pattern = Annotated[str, AfterValidator(_pattern)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Cpus = Annotated[float, Field(ge=0)]
Gpus = Annotated[float, Field(ge=0)]
Env = dict[str, str]
Resources = Annotated[dict[str, float], AfterValidator(_resources)]
NonEmpty = Annotated[str, Field(min_length=1)]
