"""A lane as the ingress sees it: calls go in, answers stream out, failures have two names.

The only module of the ingress that touches Ray Serve handles.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Protocol

from ray.exceptions import RayActorError, RaySystemError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
)
from ray.serve.handle import DeploymentHandle

from rayspec.engine.messages import Begin, Call, End
from rayspec.errors import EngineLost
from rayspec.telemetry.spans import entered

__all__ = ["LaneClient", "LaneDown", "LaneFull", "ServeDeployment", "ServeLane"]


# Ray raises an error of ours as one that is both its own and ours.
_DOWN = (
    RayActorError,
    RaySystemError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
    EngineLost,
)


class LaneFull(Exception):
    """The lane's queue is full; nothing was started."""


class LaneDown(Exception):
    """The lane has no replica, or the replica or its engine died while it answered."""


class LaneClient(Protocol):
    """Answers calls; see `ServeLane`."""

    def stream(self, call: Call) -> AsyncGenerator[Begin | bytes | End, None]:
        """Yield `Begin`, body chunks and `End`; raise `LaneFull` or `LaneDown`."""
        ...


class ServeDeployment:
    """A deployment of which every replica can be asked something."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle: Any = handle

    async def broadcast(self, method: str, *args: Any, timeout_s: float) -> list[Any]:
        """Call `method` on every replica; leave out those that fail or take over `timeout_s`.

        Raises `LaneDown` when there is no replica.
        """
        try:
            response = self._handle.broadcast(method, *args)
            results = await response.results_async(timeout_s=timeout_s, return_exceptions=True)
        except DeploymentUnavailableError as error:
            raise LaneDown("no replica") from error
        except (*_DOWN, TimeoutError):
            return []
        return [result for result in results if not isinstance(result, BaseException)]


class ServeLane(ServeDeployment):
    """A lane served by a Ray Serve deployment.

    Closing the generator cancels the request on the replica, which aborts it in the engine.
    """

    def __init__(self, handle: DeploymentHandle) -> None:
        super().__init__(handle)
        self._streaming: Any = handle.options(stream=True)

    async def stream(self, call: Call) -> AsyncGenerator[Begin | bytes | End, None]:
        """Yield the answer of one replica to `call`."""
        with entered(dict(call.trace)):
            response = self._streaming.handle.remote(call)
        complete = False
        try:
            async for item in response:
                complete = isinstance(item, End)
                yield item
        except BackPressureError as error:
            raise LaneFull(str(error)) from error
        except _DOWN as error:
            raise LaneDown(type(error).__name__) from error
        except (asyncio.CancelledError, GeneratorExit):
            # Who has a complete answer asks for no more: there is nothing to take back.
            if not complete:
                response.cancel()
            raise
