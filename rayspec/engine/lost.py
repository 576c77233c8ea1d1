"""Tells an engine's death from an answer, so that the ingress can ask another lane.

vLLM's application turns it into an error 500 like any other. Until Serve has replaced the replica
every request would get one at once, and a lane that fails so quickly looks like a quick one.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable

from rayspec.engine.asgi import ResponseStart
from rayspec.errors import EngineLost

__all__ = ["unless_lost"]


async def unless_lost(
    answer: Callable[[], AsyncGenerator[ResponseStart | bytes, None]], lost: Callable[[], bool]
) -> AsyncGenerator[ResponseStart | bytes, None]:
    """Yield an answer; raises EngineLost before it, or instead of an error, if the engine is dead.

    What streams already ends as vLLM ends it, with an error of its own.
    """
    if lost():
        raise EngineLost("the engine is dead")
    try:
        async with contextlib.aclosing(answer()) as items:
            async for item in items:
                if isinstance(item, ResponseStart) and item.status >= 500 and lost():
                    raise EngineLost("the engine died before it answered")
                yield item
    except EngineLost:
        raise
    except Exception as error:
        if lost():
            raise EngineLost("the engine died") from error
        raise
