"""The process of one engine: `python -m load_tests.bench.worker <fd>`, told what to do over a pipe.

It is sent the engine's arguments, then (method of `MeasuredEngine`, arguments) until "close", and
answers each with ("ok", result) or ("error", text).
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from multiprocessing.connection import Connection
from typing import Any

__all__ = ["main"]


async def serve(pipe: Connection) -> None:
    """Start the engine that the first message describes, and obey until told to close."""
    # Imported here: a failing import of vLLM is an answer, too.
    from load_tests.bench.engine import MeasuredEngine

    engine = MeasuredEngine(await asyncio.to_thread(pipe.recv))
    try:
        pipe.send(("ok", engine.facts()))
        while True:
            method, arguments = await asyncio.to_thread(pipe.recv)
            if method == "close":
                return
            pipe.send(await _call(engine, method, arguments))
    finally:
        engine.close()


async def _call(engine: Any, method: str, arguments: tuple[Any, ...]) -> tuple[str, Any]:
    try:
        return "ok", await getattr(engine, method)(*arguments)
    except Exception as error:
        traceback.print_exc()
        return "error", f"{type(error).__name__}: {error}"


def main() -> int:
    """Serve the pipe whose descriptor is the first argument."""
    pipe = Connection(int(sys.argv[1]))
    try:
        asyncio.run(serve(pipe))
    except (EOFError, ConnectionError):
        return 1
    except Exception as error:
        traceback.print_exc()
        pipe.send(("error", f"{type(error).__name__}: {error}"))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
