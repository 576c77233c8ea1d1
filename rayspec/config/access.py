"""Configuration of who may ask and from where: API keys and cross-origin requests."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from rayspec.config.fields import Count, NonEmpty, Section
from rayspec.config.specs import CorsSpec
from rayspec.ingress.keys import ApiKey

_KEY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def _digest(value: str) -> str:
    if len(value) != 64 or not set(value.lower()) <= set("0123456789abcdef"):
        raise ValueError("must be 64 hexadecimal digits, as `rayspec keys new NAME` prints them")
    return value.lower()


def _key_name(value: str) -> str:
    if not _KEY_NAME.fullmatch(value):
        raise ValueError("use 1 to 64 letters, digits, `_`, `.` and `-`")
    return value


def _origin(value: str) -> str:
    if value != "*" and (not value.startswith(("http://", "https://")) or value.endswith("/")):
        raise ValueError("write an origin such as https://chat.example.com, without a path, or *")
    return value


def _path(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("must begin with /")
    return value


Digest = Annotated[str, AfterValidator(_digest)]
KeyName = Annotated[str, AfterValidator(_key_name)]
Origin = Annotated[str, AfterValidator(_origin)]
PathPattern = Annotated[str, AfterValidator(_path)]


class ApiKeyConfig(Section):
    """One client's key, as its hash; `rayspec keys new NAME` makes both."""

    name: KeyName = Field(
        description="Names the client in metrics and refusals: letters, digits, `_`, `.` and `-`."
    )
    sha256: Digest = Field(description="SHA-256 of the key, in hexadecimal digits.")
    requests_per_minute: float | None = Field(
        None,
        gt=0,
        description="Requests that the key may begin in a minute, all at once or spread; beyond "
        "that the status is 429. By default there is no limit. Each of several ingress replicas "
        "enforces its equal share.",
    )
    concurrent_requests: Count | None = Field(
        None,
        description="Requests that the key may have unanswered at once; beyond that the status is "
        "429. By default there is no limit. Each of several ingress replicas enforces its equal "
        "share, rounded up.",
    )


class KeysConfig(Section):
    """The keys of all clients."""

    api_keys: list[ApiKeyConfig] = Field(
        default_factory=list,
        description="Who may ask, by `Authorization: Bearer KEY`; without any, everyone may. As "
        "`user_config` of the deployment `Ingress` the list changes without a restart.",
    )

    def keys(self) -> tuple[ApiKey, ...]:
        """Return the keys as the ingress compares them."""
        return tuple(
            ApiKey(
                name=key.name,
                sha256=bytes.fromhex(key.sha256),
                requests_per_minute=key.requests_per_minute,
                concurrent_requests=key.concurrent_requests,
            )
            for key in self.api_keys
        )

    @model_validator(mode="after")
    def _check_keys(self) -> Self:
        for field in ("name", "sha256"):
            values = [getattr(key, field) for key in self.api_keys]
            if len(set(values)) < len(values):
                raise ValueError(f"api_keys: two have the same {field}; give each its own")
        return self


class CorsConfig(Section):
    """Which web pages of other origins may ask from a browser."""

    allow_origins: list[Origin] = Field(
        min_length=1, description="Origins such as https://chat.example.com, or `*` for all."
    )
    allow_headers: list[NonEmpty] = Field(
        ["Authorization", "Content-Type", "X-Rayspec-Speculation", "X-Workload-Class"],
        description="Request headers that they may send; `*` for all.",
    )
    max_age_s: Count = Field(600, description="Seconds for which browsers remember the answer.")

    def spec(self) -> CorsSpec:
        """Return the same as a spec."""
        return CorsSpec(tuple(self.allow_origins), tuple(self.allow_headers), self.max_age_s)
