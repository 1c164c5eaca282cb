"""What every server process does alike: end on a signal, count itself, say where it serves, drain within a limit.

What a process made at its start it can keep from the garbage collector, too.
"""

import asyncio
import gc
import json
import logging
import os
import signal
import sys
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from prometheus_client import CollectorRegistry, ProcessCollector

log = logging.getLogger(__name__)
GARBAGE_OBJECTS = 5000  # that may wait for the collector: a request leaves about three, all else goes by counting


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def spare_collector() -> None:
    """Keep the garbage collector from what the start made and the process keeps: to be called once it serves.

    It would look at all of that again and again, a hundred thousand objects, and stop every request meanwhile.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS, *gc.get_threshold()[1:])


def open_registry() -> CollectorRegistry:
    """A registry of metrics that holds the process's own: memory, CPU, open files."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


def bound_address(listen: str, port: int) -> str:
    """The address that was asked for, with the port that was bound."""
    return f"{listen.rpartition(':')[0]}:{port}"


def announce(
    path: Path | None, address: str, metrics_address: str, http_address: str = "", control_address: str = ""
) -> None:
    """Write where this process serves, in one rename: a reader sees all of it or nothing. None = nobody asks."""
    if path is None:
        return
    part = path.with_name(f".{path.name}.part")
    told = {
        "address": address,
        "metrics_address": metrics_address,
        "http_address": http_address,
        "control_address": control_address,
        "pid": os.getpid(),
    }
    part.write_text(json.dumps(told))
    part.replace(path)


async def drain(running: Awaitable[None], limit_s: float) -> None:
    """Wait until what runs has ended; after the limit it is left to its fate."""
    log.info("draining")
    with suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            await running


def end_now(code: int) -> NoReturn:
    """End the process without the interpreter's own end, when everything that matters is closed.

    The interpreter would look at every object of torch once more, 2 to 5 s of CPU. It would also wait for threads that
    cannot be told to stop.
    """
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)
