"""The built-in page: one file without anything from elsewhere, and headers that hold it to that."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib import resources

from starlette.responses import HTMLResponse, Response

__all__ = ["policy", "respond"]

_INLINE = {kind: re.compile(rf"<{kind}>(.*?)</{kind}>", re.DOTALL) for kind in ("script", "style")}


def respond() -> Response:
    """Return the page."""
    html, security = _page()
    return HTMLResponse(
        html,
        headers={
            "content-security-policy": security,
            "cache-control": "no-cache",
            "referrer-policy": "no-referrer",
            "x-content-type-options": "nosniff",
        },
    )


def policy(html: str) -> str:
    """Return a content security policy under which only `html`'s own script and style work."""
    sources = {
        kind: " ".join(f"'sha256-{_digest(text)}'" for text in inline.findall(html)) or "'none'"
        for kind, inline in _INLINE.items()
    }
    return (
        f"default-src 'none'; script-src {sources['script']}; style-src {sources['style']}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def _page() -> tuple[str, str]:
    html = resources.files("rayspec.ingress").joinpath("page.html").read_text(encoding="utf-8")
    return html, policy(html)
