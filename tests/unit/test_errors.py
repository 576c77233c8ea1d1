"""The exception tree and its OpenAI form."""

from __future__ import annotations

import pickle

import pytest

from rayspec import errors
from rayspec.errors import ConfigError, Overloaded, RequestError, to_openai


def test_config_error_is_one_line_with_field_value_and_remedy() -> None:
    error = ConfigError("speculative.k_tiers", [9], "use values\n  up to 5")
    assert str(error) == "speculative.k_tiers = [9]: use values up to 5"


def test_config_error_shortens_long_values_and_keeps_the_end_of_a_path() -> None:
    path = "/begins" + "/folder" * 100 + "/prompts.jsonl:7"
    text = str(ConfigError("prompts", path, "is not JSON"))
    assert text.startswith("prompts = '/begins/")
    assert text.endswith("…/folder/folder/folder/folder/prompts.jsonl:7': is not JSON"[-40:])
    assert len(text) == len("prompts = : is not JSON") + 80


def test_config_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(ConfigError("a.b", 1, "use 2")))
    assert (error.field, error.value, error.remedy) == ("a.b", 1, "use 2")


@pytest.mark.parametrize(
    ("name", "status", "type_"),
    [
        ("BadRequest", 400, "BadRequestError"),
        ("NotFound", 404, "NotFoundError"),
        ("PayloadTooLarge", 413, "PayloadTooLargeError"),
        ("Overloaded", 429, "RateLimitError"),
        ("Unavailable", 503, "ServiceUnavailableError"),
    ],
)
def test_request_errors_map_to_openai(name: str, status: int, type_: str) -> None:
    error = getattr(errors, name)("no", param="model")
    assert error.status == status
    assert to_openai(error) == {
        "error": {"message": "no", "type": type_, "param": "model", "code": status}
    }


def test_own_code_replaces_the_status_in_the_body() -> None:
    assert to_openai(errors.NotFound("no", code="model_not_found"))["error"]["code"] == (
        "model_not_found"
    )


def test_status_and_type_can_be_those_of_a_foreign_error() -> None:
    error = RequestError("slow", status=408, type="Timeout")
    assert (error.status, to_openai(error)["error"]["type"]) == (408, "Timeout")
    assert RequestError.status == 500


def test_unexpected_exceptions_do_not_leak_their_message() -> None:
    body = to_openai(ValueError("secret path"))
    assert body["error"]["message"] == "Internal server error."
    assert body["error"]["code"] == 500


def test_overloaded_says_when_to_retry() -> None:
    assert Overloaded("full", retry_after_s=3).headers == {"Retry-After": "3"}


@pytest.mark.parametrize(
    "error",
    [
        errors.BadRequest("no", code="c", param="p"),
        Overloaded("full", retry_after_s=7, param="p"),
        errors.LinkRefused("vocabulary 10 != 11"),
    ],
)
def test_errors_keep_their_fields_between_processes(error: Exception) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_every_public_error_is_a_rayspec_error() -> None:
    classes = [getattr(errors, name) for name in errors.__all__ if name[0].isupper()]
    assert all(issubclass(cls, errors.RayspecError) for cls in classes)
