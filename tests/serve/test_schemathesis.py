"""Whatever fits the served OpenAPI document, and much that does not, gets an answer below 500."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error

from tests.support.application import BASE_URL, Application

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

OPERATIONS = {
    "/v1/chat/completions": "POST",
    "/v1/completions": "POST",
    "/tokenize": "POST",
    "/detokenize": "POST",
    "/v1/models": "GET",
    "/health": "GET",
    "/metrics": "GET",
}
# A request that is answered. Half of the examples have all the fields that were generated, of which
# one is nearly always refused; the others have only some of them on top of this.
GOOD: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hi"}]},
    "/v1/completions": {"prompt": "Hi"},
    "/tokenize": {"prompt": "Hi"},
    "/detokenize": {"tokens": [1, 2]},
}
EXAMPLES = 150
# More would only keep the engines of a small machine busy for longer.
TOKENS, SEQUENCES = 4, 2


@pytest.fixture(scope="module")
def served(app: Application) -> Any:
    return schemathesis.openapi.from_url(f"{BASE_URL}/openapi.json")


def test_every_operation_is_in_the_document(served: Any) -> None:
    found = [operation.ok() for operation in served.get_all_operations()]
    assert {op.path: op.method.upper() for op in found}.items() >= OPERATIONS.items()


@pytest.mark.parametrize("path", OPERATIONS)
def test_nothing_is_a_server_error(served: Any, path: str) -> None:
    operation = served[path][OPERATIONS[path]]

    @settings(
        max_examples=EXAMPLES if OPERATIONS[path] == "POST" else 3,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(), data=st.data())
    def ask(case: Any, data: st.DataObject) -> None:
        if isinstance(case.body, dict):
            fields: Any = st.sets(st.sampled_from(sorted(case.body) or [""]), max_size=2)
            kept = data.draw(st.one_of(st.none(), fields))
            if case.body and kept is not None:
                case.body = GOOD[path] | {name: case.body[name] for name in kept}
            bound(case.body)
        response = case.call(timeout=120)
        case.validate_response(response, checks=[not_a_server_error])

    ask()


def bound(body: dict[str, Any]) -> None:
    """Shorten answers that would be long; what vLLM refuses stays as it is."""
    if body.get("max_tokens") is None and body.get("max_completion_tokens") is None:
        body["max_tokens"] = TOKENS
    limits = {"max_tokens": TOKENS, "max_completion_tokens": TOKENS, "n": SEQUENCES}
    for name, most in (limits | {"min_tokens": TOKENS}).items():
        value = body.get(name)
        if isinstance(value, int) and most < value < 2048:
            body[name] = most
