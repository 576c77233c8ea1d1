from __future__ import annotations

import pytest

from rayspec.errors import RateLimited, Unauthorized, to_openai
from rayspec.ingress.keys import ApiKey, KeyRing, digest, new_key
from tests.support.clock import Clock

ALICE, BOB = "rsk-alice", "rsk-bob"


def ring(*keys: ApiKey, replicas: int = 1, clock: Clock | None = None) -> KeyRing:
    return KeyRing(keys, replicas, clock or Clock())


def key(secret: str = ALICE, name: str = "alice", **limits: float) -> ApiKey:
    return ApiKey(name, digest(secret), **limits)  # type: ignore[arg-type]


def bearer(secret: str) -> str:
    return f"Bearer {secret}"


def test_new_keys_are_long_and_differ() -> None:
    one, other = new_key(), new_key()
    assert one != other
    assert len(one) > 40


def test_a_known_key_is_admitted_whatever_the_case_of_the_scheme() -> None:
    keys = ring(key(), key(BOB, "bob"))
    assert keys.admit(bearer(BOB)).name == "bob"
    assert keys.admit("bearer  " + ALICE).name == "alice"


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", ALICE, f"Basic {ALICE}", bearer("wrong"), bearer("ä\udcff")],
)
def test_others_are_not(header: str | None) -> None:
    with pytest.raises(Unauthorized) as caught:
        ring(key()).admit(header)
    error = to_openai(caught.value)["error"]
    assert caught.value.status == 401
    assert error["code"] == "invalid_api_key"
    assert caught.value.headers == {"WWW-Authenticate": "Bearer"}
    assert "wrong" not in error["message"]


def test_a_minutes_requests_may_come_at_once_and_then_one_by_one() -> None:
    clock = Clock()
    keys = ring(key(requests_per_minute=6), clock=clock)
    for _ in range(6):
        keys.admit(bearer(ALICE))
    with pytest.raises(RateLimited) as caught:
        keys.admit(bearer(ALICE))
    assert caught.value.headers == {"Retry-After": "10"}
    assert to_openai(caught.value)["error"]["code"] == "rate_limit_exceeded"
    clock.advance(9.9)
    with pytest.raises(RateLimited) as caught:
        keys.admit(bearer(ALICE))
    assert caught.value.retry_after_s == 1
    clock.advance(0.2)
    keys.admit(bearer(ALICE))
    with pytest.raises(RateLimited):
        keys.admit(bearer(ALICE))


def test_the_bucket_never_holds_more_than_a_minute() -> None:
    clock = Clock()
    keys = ring(key(requests_per_minute=2), clock=clock)
    clock.advance(3600)
    for _ in range(2):
        keys.admit(bearer(ALICE))
    with pytest.raises(RateLimited):
        keys.admit(bearer(ALICE))


def test_less_than_one_request_a_minute_still_lets_the_first_in() -> None:
    clock = Clock()
    keys = ring(key(requests_per_minute=0.5), clock=clock)
    keys.admit(bearer(ALICE))
    with pytest.raises(RateLimited) as caught:
        keys.admit(bearer(ALICE))
    assert caught.value.retry_after_s == 120


def test_open_requests_are_counted_per_key_until_they_are_released() -> None:
    keys = ring(key(concurrent_requests=2), key(BOB, "bob", concurrent_requests=1))
    first, _ = keys.admit(bearer(ALICE)), keys.admit(bearer(ALICE))
    keys.admit(bearer(BOB))
    with pytest.raises(RateLimited):
        keys.admit(bearer(ALICE))
    first.release()
    first.release()
    keys.admit(bearer(ALICE))
    with pytest.raises(RateLimited):
        keys.admit(bearer(ALICE))


def test_a_refused_request_costs_nothing() -> None:
    keys = ring(key(concurrent_requests=1, requests_per_minute=2))
    lease = keys.admit(bearer(ALICE))
    for _ in range(3):
        with pytest.raises(RateLimited):
            keys.admit(bearer(ALICE))
    lease.release()
    keys.admit(bearer(ALICE))


def test_several_replicas_share_the_limits() -> None:
    clock = Clock()
    keys = ring(key(requests_per_minute=8, concurrent_requests=5), replicas=2, clock=clock)
    leases = [keys.admit(bearer(ALICE)) for _ in range(3)]
    with pytest.raises(RateLimited, match="at once"):
        keys.admit(bearer(ALICE))
    leases.pop().release()
    keys.admit(bearer(ALICE)).release()
    with pytest.raises(RateLimited, match="8 requests a minute"):
        keys.admit(bearer(ALICE))
    clock.advance(15)
    keys.admit(bearer(ALICE))


def test_other_keys_are_taken_and_known_ones_keep_what_they_used() -> None:
    keys = ring(key(requests_per_minute=1), key(BOB, "bob"))
    lease = keys.admit(bearer(ALICE))
    keys.replace([key(requests_per_minute=1)])
    with pytest.raises(RateLimited):
        keys.admit(bearer(ALICE))
    with pytest.raises(Unauthorized):
        keys.admit(bearer(BOB))
    keys.replace([])
    assert not keys
    lease.release()
