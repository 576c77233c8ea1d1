"""Shows whether this machine's Linux lets one busy session stop the processes of another.

    python load_tests/sessions.py

A session of its own computes on every core; first by itself, then beside threads that sleep and
wake a hundred times a second, as an engine's do. Meanwhile this process asks for less than a
millisecond of a core at a time, and prints how long it had to wait. Milliseconds are as it should
be. With kernels that lose count of tasks which come and go in numbers it is up to seconds: a client
of another terminal then sees streams stall although the engine is on time. What runs in the session
of the application is not affected. Exits with 1 if a wait was longer than `--limit`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

_NAP_S = 0.01  # of a thread that comes and goes
_WORK = 20_000  # additions, some tenths of a millisecond
_SETTLE_S = 2.0


def compete(threads: int, seconds: float) -> None:
    """Keep all cores busy, and so many threads for each that wake up again and again."""
    end = time.monotonic() + seconds

    def nap() -> None:
        while time.monotonic() < end:
            time.sleep(_NAP_S)

    for core in sorted(os.sched_getaffinity(0)):
        if os.fork() == 0:
            os.sched_setaffinity(0, {core})
            while time.monotonic() < end:
                pass
            os._exit(0)
        if os.fork() == 0:
            nappers = [threading.Thread(target=nap) for _ in range(threads)]
            for each in nappers:
                each.start()
            for each in nappers:
                each.join()
            os._exit(0)
    while time.monotonic() < end:
        time.sleep(0.1)


def waits(seconds: float) -> list[float]:
    """Return, sorted, what short pieces of work took longer than their pauses; seconds."""
    found, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        asked = time.perf_counter()
        time.sleep(_NAP_S / 2)
        sum(range(_WORK))
        found.append(time.perf_counter() - asked - _NAP_S / 2)
    return sorted(found)


def beside(threads: int, seconds: float) -> list[float]:
    """Return the waits beside a busy session."""
    command = [sys.executable, __file__, "--compete", str(threads), "--seconds"]
    # It outlives the measurement.
    with subprocess.Popen(
        [*command, str(seconds + 2 * _SETTLE_S)], start_new_session=True
    ) as session:
        time.sleep(_SETTLE_S)
        found = waits(seconds)
        session.wait()
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=40, help="that come and go, per core")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--limit", type=float, default=0.1, help="longest wait, seconds")
    parser.add_argument("--compete", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.compete is not None:
        compete(options.compete, options.seconds)
        return 0
    worst = 0.0
    print(f"{os.uname().sysname} {os.uname().release}, {len(os.sched_getaffinity(0))} cores")
    for threads in (0, options.threads):
        found = beside(threads, options.seconds)
        p50, p99 = found[len(found) // 2], found[int(len(found) * 0.99)]
        worst = max(worst, found[-1])
        print(
            f"beside {threads:3} threads a core: {len(found)} waits, p50 {p50 * 1e3:.1f} ms, "
            f"p99 {p99 * 1e3:.1f}, longest {found[-1] * 1e3:.1f}",
            flush=True,
        )
    return int(worst > options.limit)


if __name__ == "__main__":
    sys.exit(main())
