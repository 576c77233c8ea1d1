"""How long a request may take: until its first token, and as a whole."""

from __future__ import annotations

from dataclasses import dataclass

from rayspec.errors import RequestError

__all__ = ["Deadline", "RequestTimeout", "deadlines"]


class RequestTimeout(RequestError):
    """The configured time for one request, or for its first token, ran out."""

    status = 504
    type = "TimeoutError"


@dataclass(frozen=True, slots=True)
class Deadline:
    """A time on a monotonic clock, in seconds, and what the client is told when it has passed."""

    at: float
    message: str

    def error(self) -> RequestTimeout:
        """Return the error that says so."""
        return RequestTimeout(self.message)


def deadlines(
    started: float, whole_s: float | None, first_token_s: float | None
) -> tuple[Deadline | None, Deadline | None]:
    """Return when an answer must have ended, and when it must have begun; None for no limit."""
    whole = first = None
    if whole_s is not None:
        message = f"The request was not answered within {whole_s:g} seconds."
        whole = first = Deadline(started + whole_s, message)
    if first_token_s is not None and (whole_s is None or first_token_s < whole_s):
        message = f"The stream had no token within {first_token_s:g} seconds."
        first = Deadline(started + first_token_s, message)
    return whole, first
