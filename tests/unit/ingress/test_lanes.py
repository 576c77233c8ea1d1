"""What a lane does to Serve's response; the response itself is scripted."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError

from rayspec.engine.messages import Begin, Call, End, Generation
from rayspec.ingress.lanes import LaneDown, LaneFull, ServeLane
from rayspec.routing import EngineSnapshot, Lane

SNAPSHOT = EngineSnapshot(Lane.PLAIN, "plain-1", 1.0, 0, 0, 0.0, attached=False)
ANSWER = [Begin(200, (), SNAPSHOT), b"a", b"b", End(Generation(), SNAPSHOT)]


class Response:
    def __init__(self, items: list[Any]) -> None:
        self._items = items
        self.cancelled = 0

    async def __aiter__(self) -> AsyncIterator[Any]:
        for item in self._items:
            if isinstance(item, Exception):
                raise item
            yield item

    def cancel(self) -> None:
        self.cancelled += 1


class Handle:
    """Answers every call with the same response."""

    def __init__(self, response: Response) -> None:
        self._response = response
        self.handle = self

    def options(self, *, stream: bool) -> Handle:
        assert stream
        return self

    def remote(self, call: Call) -> Response:
        return self._response


def answer(response: Response) -> AsyncGenerator[Begin | bytes | End, None]:
    handle: Any = Handle(response)
    return ServeLane(handle).stream(Call("POST", "/v1/completions", ()))


@pytest.mark.parametrize(("taken", "cancelled"), [(1, 1), (3, 1), (4, 0)])
async def test_only_an_incomplete_answer_is_cancelled(taken: int, cancelled: int) -> None:
    response = Response(ANSWER)

    async with aclosing(answer(response)) as items:
        assert [await anext(items) for _ in range(taken)] == ANSWER[:taken]

    assert response.cancelled == cancelled


@pytest.mark.parametrize(
    ("raised", "told"), [(BackPressureError(1, 1), LaneFull), (RayActorError(), LaneDown)]
)
async def test_failures_have_two_names(raised: Exception, told: type[Exception]) -> None:
    with pytest.raises(told):
        await anext(answer(Response([raised])))
