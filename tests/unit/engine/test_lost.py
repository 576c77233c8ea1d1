from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from rayspec.engine.asgi import ResponseStart
from rayspec.engine.lost import unless_lost
from rayspec.errors import EngineLost

Item = ResponseStart | bytes


class Engine:
    """Answers with `items`; dies before the one with number `dies`."""

    def __init__(self, *items: Item | Exception, dies: int | None = None) -> None:
        self._items, self._dies = items, dies
        self.lost = dies == -1
        self.asked = False

    async def answer(self) -> AsyncGenerator[Item, None]:
        self.asked = True
        for number, item in enumerate(self._items):
            self.lost = self.lost or number == self._dies
            if isinstance(item, Exception):
                raise item
            yield item

    async def take(self) -> list[Item]:
        return [item async for item in unless_lost(self.answer, lambda: self.lost)]


OK, ERROR = ResponseStart(200, ()), ResponseStart(500, ())


async def test_an_answer_passes_and_so_does_an_error_of_a_living_engine() -> None:
    assert await Engine(OK, b"a", b"b").take() == [OK, b"a", b"b"]
    assert await Engine(ERROR, b"{}").take() == [ERROR, b"{}"]
    with pytest.raises(ValueError, match="odd"):
        await Engine(OK, ValueError("odd")).take()


async def test_a_dead_engine_is_not_asked() -> None:
    engine = Engine(OK, dies=-1)
    with pytest.raises(EngineLost):
        await engine.take()
    assert not engine.asked


async def test_an_engine_that_dies_before_it_answers_is_no_answer() -> None:
    with pytest.raises(EngineLost):
        await Engine(ERROR, b"{}", dies=0).take()
    with pytest.raises(EngineLost):
        await Engine(RuntimeError("EngineDeadError"), dies=0).take()


async def test_what_streams_already_ends_as_the_application_ends_it() -> None:
    last = b'data: {"error": {}}\n\n'
    assert await Engine(OK, b"a", last, dies=2).take() == [OK, b"a", last]
