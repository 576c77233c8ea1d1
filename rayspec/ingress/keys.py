"""API keys: who asks, and how much that client may ask at once and in a minute.

Only hashes are known here. Keys are 256 random bits, so that a plain SHA-256 of one cannot be
turned back by guessing.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rayspec.errors import RateLimited, Unauthorized

__all__ = ["ApiKey", "KeyRing", "Lease", "digest", "new_key"]

_PREFIX = "rsk-"
_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One client: the SHA-256 of its key, and its limits; None for no limit."""

    name: str
    sha256: bytes
    requests_per_minute: float | None = None
    concurrent_requests: int | None = None


def new_key() -> str:
    """Return a new key."""
    return _PREFIX + secrets.token_urlsafe(_KEY_BYTES)


def digest(key: str) -> bytes:
    """Return the hash by which a key is known."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


class _Account:
    """What one key has used: a bucket of tokens that refills, and requests that are not answered.

    The bucket holds a minute's worth, so that a whole minute's requests may come at once.
    """

    def __init__(self, key: ApiKey, replicas: int, clock: Callable[[], float]) -> None:
        self.key = key
        self.open = 0
        rate = key.requests_per_minute
        self._per_second = None if rate is None else rate / 60 / replicas
        self._capacity = 0.0 if rate is None else max(rate / replicas, 1.0)
        most = key.concurrent_requests
        self._most_open = None if most is None else math.ceil(most / replicas)
        self._clock = clock
        self._tokens = self._capacity
        self._at = clock()

    def take(self) -> None:
        """Count a request; raises `RateLimited` if it is one too many."""
        if self._most_open is not None and self.open >= self._most_open:
            raise RateLimited(
                f"The API key {self.key.name!r} has {self.open} unanswered requests, as many as it "
                "may have at once.",
                retry_after_s=1,
            )
        if self._per_second is not None:
            self._spend(self._per_second)
        self.open += 1

    def _spend(self, per_second: float) -> None:
        now = self._clock()
        self._tokens = min(self._capacity, self._tokens + (now - self._at) * per_second)
        self._at = now
        if self._tokens < 1:
            raise RateLimited(
                f"The API key {self.key.name!r} may begin {self.key.requests_per_minute:g} "
                "requests a minute, and has.",
                retry_after_s=max(1, math.ceil((1 - self._tokens) / per_second)),
            )
        self._tokens -= 1


class Lease:
    """A request that was admitted, until its answer has ended."""

    def __init__(self, account: _Account) -> None:
        self._account: _Account | None = account
        self.name = account.key.name

    def release(self) -> None:
        """Count the request as answered; may be called again."""
        if self._account is not None:
            self._account.open -= 1
            self._account = None


class KeyRing:
    """The keys of all clients; this process enforces its share of limits that hold for `replicas`.

    `clock` is monotonic, in seconds. Not thread-safe: it belongs to one event loop.
    """

    def __init__(self, keys: Iterable[ApiKey], replicas: int, clock: Callable[[], float]) -> None:
        self._replicas = replicas
        self._clock = clock
        self._accounts: tuple[_Account, ...] = ()
        self.replace(keys)

    def __bool__(self) -> bool:
        return bool(self._accounts)

    def replace(self, keys: Iterable[ApiKey]) -> None:
        """Take other keys; those that stay as they were keep what they have used."""
        known = {account.key: account for account in self._accounts}
        self._accounts = tuple(
            known.get(key) or _Account(key, self._replicas, self._clock) for key in keys
        )

    def admit(self, authorization: str | None) -> Lease:
        """Admit a request by its `Authorization` header.

        Raises `Unauthorized`, or `RateLimited` if the key has used what it may.
        """
        scheme, _, presented = (authorization or "").partition(" ")
        presented = presented.strip()
        if scheme.lower() != "bearer" or not presented:
            raise Unauthorized(
                "You didn't provide an API key: send it as 'Authorization: Bearer KEY'."
            )
        account = self._find(digest(presented))
        if account is None:
            raise Unauthorized("Incorrect API key provided.")
        account.take()
        return Lease(account)

    def _find(self, presented: bytes) -> _Account | None:
        # Looks at every key, each in constant time: how long it takes tells nothing about them.
        found = None
        for account in self._accounts:
            if hmac.compare_digest(account.key.sha256, presented):
                found = account
        return found
