"""Locust load test of an OpenAI server that streams, with figures per workload class and lane.

    locust -f load_tests/locustfile.py --headless --steps 1,4,16 --result run.json
    locust -f load_tests/locustfile.py                  # web UI at http://127.0.0.1:8089

`python load_tests/locustfile.py --help` lists all options (Locust's own `--help` does not read
locustfiles). Beside the requests, Locust's statistics have `chat
TTFT`, `chat TPOT`, `chat inter-chunk` (ms), `chat tokens/s` and `chat acceptance %`, each once per
lane, which stands in the column of the method.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from locust import events  # noqa: E402
from locust.argument_parser import get_parser  # noqa: E402
from locust.env import Environment  # noqa: E402
from locust.runners import WorkerRunner  # noqa: E402

from load_tests.load_shapes import ChosenShape  # noqa: E402
from load_tests.traffic.collect import Collector  # noqa: E402
from load_tests.traffic.options import add_options  # noqa: E402
from load_tests.traffic.server import NotThere, ask_server  # noqa: E402
from load_tests.traffic.user import StreamingUser  # noqa: E402

__all__ = ["ChosenShape", "StreamingUser"]

logger = logging.getLogger(__name__)

# Locust's default, none, would cut off what the users of the last step wait for.
_STOP_TIMEOUT_S = 60.0

events.init_command_line_parser.add_listener(add_options)


def _judge(environment: Environment, **_: Any) -> None:
    """Fail a run that measured nothing, such as one that lost its workers."""
    options = environment.parsed_options
    if options is None or not options.headless or options.shape in ("closed", "soak"):
        return
    if missing := StreamingUser.collector.missing():
        logger.error("no answer was measured at: %s", ", ".join(missing))
        environment.process_exit_code = 1


@events.init.add_listener
def _begin(environment: Environment, **_: Any) -> None:
    options = environment.parsed_options
    assert options is not None
    environment.stop_timeout = environment.stop_timeout or _STOP_TIMEOUT_S
    collector = Collector(environment)
    StreamingUser.collector = collector
    shape = environment.shape_class
    if isinstance(shape, ChosenShape):
        shape.collector = collector
        environment.events.test_stop.add_listener(lambda **_: shape.rewind())
    # The web UI may change the options between two runs.
    environment.events.test_start.add_listener(lambda **_: setattr(StreamingUser, "dealt", None))
    environment.events.test_stop.add_listener(lambda **_: collector.write())
    # Workers send their last figures after that.
    environment.events.quit.add_listener(lambda **_: collector.write())
    if not isinstance(environment.runner, WorkerRunner):
        environment.events.quitting.add_listener(_judge)
        try:
            host = environment.host or StreamingUser.host
            collector.model = ask_server(host, options.api_key).model
        except NotThere as error:
            if options.headless:
                sys.exit(f"load test: {error}")


if __name__ == "__main__":
    if not {"-h", "--help"} & set(sys.argv):
        sys.exit("run it with Locust: python -m locust -f load_tests/locustfile.py")
    get_parser().print_help()
