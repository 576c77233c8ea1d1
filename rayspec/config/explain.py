"""Turns pydantic's errors into one line with field, value and remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from rayspec.config.schema import AppConfig
from rayspec.errors import ConfigError

_FIELD_PREFIX = re.compile(r"([a-z_][\w.-]*): (.*)", re.DOTALL)
_METHODS = ("ngram", "suffix", "draft_model", "eagle", "eagle3", "mtp")
# The field that tells the alternatives of a section apart, by the section's path, and its values,
# which pydantic inserts into the path of an error.
_TAGGED: Mapping[tuple[int | str, ...], tuple[str, tuple[str, ...]]] = {
    ("draft",): ("kind", ("ngram", "model", "random")),
    ("speculative", "draft"): ("method", _METHODS),
    ("alternative", "draft"): ("method", _METHODS),
}


class _Missing:
    def __repr__(self) -> str:
        return "(missing)"


MISSING = _Missing()


def explain(error: ValidationError, args: Mapping[str, Any]) -> ConfigError:
    """Return the first error in `error`, which validating `args` raised."""
    first = error.errors(include_url=False)[0]
    path = _without_tag(first["loc"])
    kind, context = first["type"], first.get("ctx", {})
    if kind == "value_error":
        return _own(path, str(context["error"]), args)
    remedy = _REMEDIES[kind].format(**context) if kind in _REMEDIES else first["msg"]
    if kind == "extra_forbidden":
        remedy = f"unknown field{_did_you_mean(first['loc'])}"
    elif kind in ("union_tag_invalid", "union_tag_not_found"):
        name, tags = _TAGGED[path]
        path, remedy = (*path, name), f"set it to one of {', '.join(tags)}"
    return _error(path, remedy, args)


def _own(path: tuple[Any, ...], message: str, args: Mapping[str, Any]) -> ConfigError:
    # A validator of a whole section starts its message with the field that it is about.
    match = _FIELD_PREFIX.fullmatch(message)
    if match and isinstance(_value(path, args), Mapping):
        return _error((*path, *match[1].split(".")), match[2], args)
    return _error(path, message, args)


def _error(path: tuple[Any, ...], remedy: str, args: Mapping[str, Any]) -> ConfigError:
    return ConfigError(".".join(str(part) for part in path), _value(path, args), remedy)


def _without_tag(path: tuple[int | str, ...]) -> tuple[int | str, ...]:
    for tagged, (_, tags) in _TAGGED.items():
        at = len(tagged)
        if path[:at] == tagged and len(path) > at and path[at] in tags:
            return (*tagged, *path[at + 1 :])
    return tuple(part for part in path if part != "[key]")


def _value(path: tuple[Any, ...], args: Any) -> Any:
    for part in path:
        try:
            args = args[part]
        except (KeyError, IndexError, TypeError):
            return MISSING
    return args


def _did_you_mean(path: tuple[Any, ...]) -> str:
    known = _fields_beside(path)
    close = difflib.get_close_matches(str(path[-1]), known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known here: {', '.join(sorted(known))}"


def _fields_beside(path: tuple[Any, ...]) -> set[str]:
    sections: list[type[BaseModel]] = [AppConfig]
    for part in path[:-1]:
        if tagged := [section for section in sections if part in _tags(section)]:
            sections = tagged
            continue
        annotations = [s.model_fields[part].annotation for s in sections if part in s.model_fields]
        # An index of a list or a key of a mapping stays in the section that its values have.
        sections = [m for a in annotations for m in nested_sections(a)] or sections
    return {name for section in sections for name in section.model_fields}


def _tags(section: type[BaseModel]) -> tuple[Any, ...]:
    """Return the values by which one of several sections is chosen."""
    fields = (section.model_fields.get(name) for name in ("kind", "method"))
    return next((get_args(field.annotation) for field in fields if field), ())


def nested_sections(annotation: Any) -> list[type[BaseModel]]:
    """Return the sections that a field of type `annotation` holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in nested_sections(part)]


_REMEDIES = {
    "missing": "set it; it has no default",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be a text; quote it",
    "string_too_short": "must not be empty",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping of settings",
    "model_attributes_type": "must be a mapping of settings",
    "literal_error": "must be one of {expected}",
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
}
