"""Headless Chromium, as a person would look at the built-in page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

__all__ = ["chromium", "keep", "looking"]

_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
# Nothing but the page's own requests: a browser would look for its maker's hosts.
_QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start a browser; skips the test where there is none."""
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        pytest.skip("needs Chromium: install Debian's package chromium, or set CHROMIUM")
    expect.set_options(timeout=30_000)  # beside engines a browser has little of the processor
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(_QUIET))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def looking(
    browser: Browser,
    *,
    width: int = 1280,
    scheme: Literal["light", "dark"] = "light",
    complaints: list[str] | None = None,
) -> Iterator[Page]:
    """Open a window; what the page complains of goes to `complaints`."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    if complaints is not None:

        def complain(said: Any) -> None:
            if getattr(said, "type", "error") in ("error", "warning"):
                complaints.append(str(getattr(said, "text", said)))

        page.on("console", complain)
        page.on("pageerror", complain)
    try:
        yield page
    finally:
        context.close()


def keep(page: Page, name: str) -> None:
    """Take a screenshot of the whole page into the folder RAYSPEC_SCREENSHOTS, if that is set."""
    if folder := os.environ.get("RAYSPEC_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True, timeout=120_000)
