"""How a command runs: what is wrong is told in one line with exit code 1; Ctrl-C and SIGTERM end it with 130."""

import asyncio
import signal
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape

from t2i_profiler.errors import ProfilerError
from t2ictl.errors import CtlError

console = Console()


@contextmanager
def told_in_a_line() -> Iterator[None]:
    """Around a command that needs no event loop."""
    try:
        yield
    except (CtlError, ProfilerError) as error:
        console.print(f"[red]error[/red]: {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def run(work: Coroutine[Any, Any, object]) -> None:
    """Run a command; SIGTERM ends it as Ctrl-C does, so that a pool of its own drains with it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with told_in_a_line():
        asyncio.run(work)
