from __future__ import annotations

import base64
import hashlib
import re

from rayspec.ingress import page


def body() -> str:
    return bytes(page.respond().body).decode()


def test_nothing_comes_from_elsewhere() -> None:
    html = body()
    assert not re.findall(r"(?:src|href|action)\s*=\s*[\"'](?!data:)[^\"']+", html)
    assert not re.findall(r"@import|url\(", html)
    (fetched,) = re.findall(r"fetch\(\"([^\"]+)\"", html)
    assert fetched == "ui/state"  # relative: the application may be under a route prefix


def test_the_policy_admits_what_is_in_the_page_and_no_more() -> None:
    response = page.respond()
    policy = response.headers["content-security-policy"]
    html = body()
    for kind in ("script", "style"):
        (text,) = re.findall(rf"<{kind}>(.*?)</{kind}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}';" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    # Under this policy attributes with code or styles would do nothing.
    assert not re.findall(r"<[^>]+\s(?:style|on\w+)=", html)
    assert response.headers["x-content-type-options"] == "nosniff"


def test_text_of_requests_cannot_become_markup() -> None:
    assert not re.findall(r"innerHTML|insertAdjacentHTML|outerHTML|document\.write|eval\(", body())


def test_a_page_without_script_allows_none() -> None:
    assert "script-src 'none'" in page.policy("<p>nothing</p>")
