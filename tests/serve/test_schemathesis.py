"""Whatever fits the served OpenAPI document, and much that does not, gets an answer below 500."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error

from tests.support.application import BASE_URL, Application

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

# More would only make the engines of a small machine busy for longer.
_TOKENS, _SEQUENCES = 4, 2


@pytest.fixture(scope="session")
def served(app: Application) -> Any:
    return schemathesis.openapi.from_url(f"{BASE_URL}/openapi.json")


served_schema = schemathesis.pytest.from_fixture("served")


@served_schema.parametrize()
@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_nothing_is_a_server_error(case: Case) -> None:
    if isinstance(case.body, dict):
        bound(case.body)
    response = case.call(timeout=120)
    case.validate_response(response, checks=[not_a_server_error])


def bound(body: dict[str, Any]) -> None:
    """Shorten answers that would be long; values that vLLM refuses stay."""
    limits = [body.get("max_tokens"), body.get("max_completion_tokens")]
    if all(limit is None for limit in limits):
        body["max_tokens"] = _TOKENS
    for name, most in (
        ("max_tokens", _TOKENS),
        ("max_completion_tokens", _TOKENS),
        ("min_tokens", _TOKENS),
        ("n", _SEQUENCES),
    ):
        value = body.get(name)
        if isinstance(value, int) and most < value < 10_000:
            body[name] = most
