"""The part of an OpenAI request that is rayspec's: read, checked, and taken out of the body."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rayspec.errors import BadRequest
from rayspec.ingress.classify import Classification, ClassRule, classify
from rayspec.ingress.constrained import constraint
from rayspec.routing.names import DRAFT_ARG
from rayspec.routing.types import K_ARG, Decision, Lane, RequestView, Speculation, header_safe

__all__ = ["LANE_HEADER", "SPECULATION_HEADER", "ParsedRequest", "lower_names", "parse_request"]

SPECULATION_HEADER = "x-rayspec-speculation"
LANE_HEADER = "x-rayspec-lane"

_FIELDS = ("speculation", "k")
_MAX_COUNTED = 1 << 20


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """What the router needs to know, why the class was chosen, and the body for the engine.

    `body` has no `rayspec` object any more; `decoded` is the same as JSON.
    """

    view: RequestView
    classification: Classification
    body: bytes
    decoded: Mapping[str, Any]

    def body_for(self, decision: Decision) -> bytes:
        """Return the body with the decided draft and its length among its `vllm_xargs`.

        Flat, because `vllm_xargs` takes strings, numbers and lists of them only (vLLM 0.32.0).
        """
        ours = {
            name: value
            for name, value in ((K_ARG, decision.k), (DRAFT_ARG, decision.draft))
            if value is not None
        }
        if not ours:
            return self.body
        xargs = self.decoded.get("vllm_xargs")
        if xargs is not None and not isinstance(xargs, dict):
            return self.body  # vLLM refuses it and says so
        return _encode({**self.decoded, "vllm_xargs": {**(xargs or {}), **ours}})


def parse_request(
    headers: Mapping[str, str],
    body: bytes,
    rules: Sequence[ClassRule] = (),
    *,
    k_max: int | None = None,
    lanes: Sequence[Lane] = (),
) -> ParsedRequest:
    """Read headers and body of a chat, completion or tokenize request.

    Checks that the body is a JSON object, and what is rayspec's in it: the headers
    `x-rayspec-speculation` and `x-workload-class`, `metadata.workload_class` and the object
    `rayspec`. A header wins over the body. A body without that object is passed on as it came.
    `lanes` may be asked for by name too, with `x-rayspec-lane` or `rayspec.lane`.
    """
    decoded = _decode(body)
    named = lower_names(headers.items())
    own = _own(decoded, (*_FIELDS, "lane") if lanes else _FIELDS)
    wish = _speculation(named.get(SPECULATION_HEADER), SPECULATION_HEADER)
    in_body = _speculation(own.get("speculation"), "rayspec.speculation")
    lane = _lane(named.get(LANE_HEADER), LANE_HEADER, lanes) if lanes else None
    classification = classify(decoded, named, rules)
    view = RequestView(
        workload_class=classification.name,
        speculation=wish or in_body or Speculation.AUTO,
        constrained=constraint(decoded) is not None,
        k=_k(own.get("k"), k_max),
        sequences=_sequences(decoded),
        body_bytes=len(body),
        max_tokens=_max_tokens(decoded),
        lane=lane or _lane(own.get("lane"), "rayspec.lane", lanes),
    )
    if "rayspec" in decoded:
        del decoded["rayspec"]
        body = _encode(decoded)
    return ParsedRequest(view, classification, body, decoded)


def lower_names(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return headers by lower-case name; the first of several with one name counts."""
    named: dict[str, str] = {}
    for name, value in headers:
        named.setdefault(name.lower(), value)
    return named


def _decode(body: bytes) -> dict[str, Any]:
    try:
        decoded = json.loads(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BadRequest(f"the request body is not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise BadRequest("the request body is nested too deeply") from None
    except ValueError as error:
        raise BadRequest(f"the request body is not JSON: {error}") from None
    if not isinstance(decoded, dict):
        raise BadRequest("the request body must be a JSON object")
    return decoded


def _encode(body: Mapping[str, Any]) -> bytes:
    # ASCII keeps lone surrogates, which JSON may carry as escapes, and which UTF-8 cannot.
    return json.dumps(body, separators=(",", ":")).encode("ascii")


def _own(body: Mapping[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    xargs = body.get("vllm_xargs")
    if isinstance(xargs, dict) and K_ARG in xargs:
        raise BadRequest(
            f"vllm_xargs.{K_ARG} is reserved: ask for a draft length with rayspec.k",
            param=f"vllm_xargs.{K_ARG}",
        )
    if isinstance(xargs, dict) and DRAFT_ARG in xargs:
        raise BadRequest(
            f"vllm_xargs.{DRAFT_ARG} is reserved: requests do not choose their draft",
            param=f"vllm_xargs.{DRAFT_ARG}",
        )
    own = body.get("rayspec")
    if own is None:
        return {}
    if not isinstance(own, dict):
        raise BadRequest(
            'rayspec must be an object such as {"speculation": "off"}', param="rayspec"
        )
    for name in own:
        if name not in fields:
            # Names are the client's: made safe, since an answer cannot encode a lone surrogate.
            source = header_safe(f"rayspec.{name}"[:64])
            known = f"{', '.join(fields[:-1])} and {fields[-1]}"
            raise BadRequest(f"{source} is unknown: rayspec has {known}", param=source)
    return own


def _speculation(value: Any, source: str) -> Speculation | None:
    if value is None:
        return None
    try:
        return Speculation(value)
    except ValueError:
        raise BadRequest(f'{source} must be "on", "off" or "auto"', param=source) from None


def _lane(value: Any, source: str, lanes: Sequence[Lane]) -> Lane | None:
    if value is None:
        return None
    if value not in tuple(lanes):
        raise BadRequest(f"{source} must be one of {', '.join(lanes)}", param=source)
    return Lane(value)


def _k(value: Any, k_max: int | None) -> int | None:
    if value is None:
        return None
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < 0 or (k_max is not None and value > k_max):
        limits = "not negative" if k_max is None else f"between 0 and {k_max}"
        raise BadRequest(f"rayspec.k must be an integer, {limits}", param="rayspec.k")
    return int(value)


def _sequences(body: Mapping[str, Any]) -> int:
    """Count the sequences the engine will run: `n` for each prompt; 1 where vLLM will refuse."""
    n = body.get("n")
    prompts = body.get("prompt")
    count = n if isinstance(n, int) and n > 0 else 1
    if isinstance(prompts, list) and prompts and isinstance(prompts[0], str | list):
        count *= len(prompts)
    return min(int(count), _MAX_COUNTED)


def _max_tokens(body: Mapping[str, Any]) -> int | None:
    """Return the longest answer that is allowed; None where it is not said, or vLLM will refuse."""
    limits = (body.get("max_completion_tokens"), body.get("max_tokens"))
    given = [n for n in limits if isinstance(n, int) and not isinstance(n, bool) and n > 0]
    return min(given, default=None)
