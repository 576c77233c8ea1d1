"""Whether a request enforces the form of its output: field names as of vLLM 0.32.0.

The `guided_*` fields of earlier versions are accepted and ignored there, so they enforce nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["constraint", "offers_tools"]

_ENFORCED_FORMATS = frozenset({"json_object", "json_schema", "structural_tag"})
_CONSTRAINTS = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")


def constraint(body: Mapping[str, Any]) -> str | None:
    """Name the field that enforces a format on the output, or return None."""
    wanted = body.get("response_format")
    if isinstance(wanted, dict):
        kind = wanted.get("type")
        if isinstance(kind, str) and kind in _ENFORCED_FORMATS:
            return f"response_format {kind}"
    structured = body.get("structured_outputs")
    if isinstance(structured, dict):
        for name in _CONSTRAINTS:
            if structured.get(name) is not None:
                return f"structured_outputs.{name}"
    if not offers_tools(body):
        return None
    choice = body.get("tool_choice", "auto")
    if choice == "required":
        return "tool_choice required"
    if isinstance(choice, dict):
        return "tool_choice of a named function"
    if choice == "auto":
        # A structural tag holds the call, as soon as a tool is strict or only one call may be.
        if body.get("parallel_tool_calls") is False:
            return "parallel_tool_calls false"
        if any(_strict(tool) for tool in body["tools"]):
            return "tools strict"
    return None


def offers_tools(body: Mapping[str, Any]) -> bool:
    """Whether the model may call tools."""
    tools = body.get("tools")
    return isinstance(tools, list) and bool(tools) and body.get("tool_choice", "auto") != "none"


def _strict(tool: Any) -> bool:
    function = tool.get("function") if isinstance(tool, dict) else None
    return isinstance(function, dict) and function.get("strict") is True
