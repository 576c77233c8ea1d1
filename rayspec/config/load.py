"""Reads a configuration and says in one line what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from rayspec.config.access import KeysConfig
from rayspec.config.explain import explain
from rayspec.config.schema import AppConfig
from rayspec.errors import ConfigError
from rayspec.ingress.keys import ApiKey

IMPORT_PATH = "rayspec.app:build"
"""What a Serve application of ours names as its `import_path`."""


def parse(args: Mapping[str, Any]) -> AppConfig:
    """Return the configuration in `args`, or raise a one-line `ConfigError`."""
    try:
        return AppConfig.model_validate(dict(args))
    except ValidationError as exc:
        raise explain(exc, args) from None


def parse_keys(user_config: Mapping[str, Any]) -> tuple[ApiKey, ...]:
    """Return the API keys in a `user_config`, or raise a one-line `ConfigError`."""
    try:
        return KeysConfig.model_validate(dict(user_config)).keys()
    except ValidationError as exc:
        raise explain(exc, user_config) from None


def load(path: str | Path, *, application: str | None = None) -> AppConfig:
    """Return the configuration in a file: a Serve YAML, or the bare arguments of one application.

    `application` names the one that is meant where a Serve YAML has several of ours.
    """
    file = Path(path)
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigError("file", str(file), f"cannot be read: {exc.strerror}") from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise ConfigError("file", str(file), f"is not valid YAML: {exc}") from exc
    if not isinstance(content, dict):
        raise ConfigError("file", str(file), "must hold a mapping of settings")
    if "applications" not in content:
        return parse(content)
    return parse(_arguments(file, content["applications"], application))


def _arguments(file: Path, applications: Any, wanted: str | None) -> Mapping[str, Any]:
    if not isinstance(applications, list):
        raise ConfigError("applications", applications, "must be a list")
    ours = [
        app
        for app in applications
        if isinstance(app, dict)
        and app.get("import_path") == IMPORT_PATH
        and wanted in (None, app.get("name", "default"))
    ]
    if not ours:
        named = "" if wanted is None else f" named {wanted!r}"
        raise ConfigError(
            "applications", str(file), f"has no application{named} with import_path {IMPORT_PATH}"
        )
    if len(ours) > 1:
        names = ", ".join(str(app.get("name", "default")) for app in ours)
        raise ConfigError("applications", names, "choose one by its name")
    args = ours[0].get("args") or {}
    if not isinstance(args, dict):
        raise ConfigError("args", args, "must be a mapping of settings")
    return args
