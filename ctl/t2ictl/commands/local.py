"""`t2ictl local up`: a pool on this machine until Ctrl-C."""

import asyncio
import signal
from contextlib import suppress
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from t2ictl.local_pool import LocalOptions, LocalPool


class StartBar:
    """A line a process while the pool comes up; plain lines afterwards."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            SpinnerColumn(finished_text="✓"), TextColumn("{task.description}"), TimeElapsedColumn(), console=console
        )
        self._tasks: dict[str, int] = {}
        self.live = False

    def __enter__(self) -> "StartBar":
        self._bar.start()
        self.live = True
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._bar.stop()
        self.live = False

    def report(self, name: str, state: str) -> None:
        """One process changed its state."""
        if not self.live:
            self._console.print(f"{name}: {state}")
            return
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(name, total=1)
        task = self._bar.task_ids[self._tasks[name]]
        wording = "loading and warming the model" if state == "starting" and name != "gateway" else state
        self._bar.update(task, description=f"{name}: {wording}", completed=1 if state == "ready" else 0)


async def run_local(console: Console, options: LocalOptions) -> None:
    """Bring a pool up, serve until Ctrl-C or SIGTERM, drain."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    bar = StartBar(console)
    pool = LocalPool(options, bar.report)
    with bar:
        starting = asyncio.ensure_future(pool.__aenter__())
        await _first_of(starting, stop)
    if not starting.done() or starting.cancelled():
        return
    starting.result()
    try:
        console.print(f"\npool [bold]{pool.pool.metadata.name}[/bold] serves at [bold]{pool.address}[/bold]")
        for process in [*pool.workers, *([pool.gateway] if pool.gateway else [])]:
            console.print(
                f"  {process.name:12} gRPC {process.address:22} metrics http://{process.metrics_address}/metrics"
            )
        console.print(
            "\n[bold yellow]SECURITY IS OFF[/bold yellow]: local mode has no TLS and believes every tenant name; "
            "for this machine only, see docs/security.md"
        )
        console.print(f'\ntry   t2ictl generate "a red circle above a blue square" --address {pool.address} -o out.png')
        console.print("Ctrl-C drains and stops.")
        await _first_of(asyncio.ensure_future(pool.supervise()), stop)
    finally:
        console.print("draining ...")
        await pool.__aexit__()


async def _first_of(work: "asyncio.Future[Any]", stop: asyncio.Event) -> None:
    """Wait for the work or the stop; the work is cancelled when the stop comes first."""
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait([work, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not work.done():
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work
