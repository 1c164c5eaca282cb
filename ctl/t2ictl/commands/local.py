"""`t2ictl local up`: a pool on this machine until Ctrl-C."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from t2i_runtime.process import stop_on_signals
from t2ictl.local_pool import DEFAULT_LISTEN, DEFAULT_LISTEN_HTTP, MODELS_DIR, LocalOptions, LocalPool
from t2ictl.options import DEFAULT_POOL, EmbedderFolder, PoolFile
from t2ictl.running import console, run

CURL = """        -H 'Content-Type: application/json' -d '{"prompt": "a red circle above a blue square"}'"""
STARTING = {"gateway": "starting", "auditor": "loading the judge"}  # anything else is a worker
app = typer.Typer(no_args_is_help=True, help="A pool on this machine.")


@app.command()
def up(
    pool: PoolFile = DEFAULT_POOL,
    listen: Annotated[str, typer.Option(help="gateway address")] = DEFAULT_LISTEN,
    listen_http: Annotated[str, typer.Option(help='address of the OpenAI Images API; "" = none')] = DEFAULT_LISTEN_HTTP,
    folder: Annotated[Path | None, typer.Option(help="logs and latents; default: a temporary folder")] = None,
    profile: Annotated[Path | None, typer.Option(help="profile JSON; default: the builtin model's")] = None,
    embedder: EmbedderFolder = None,
    models_dir: Annotated[Path, typer.Option(help="where hf:// and pvc:// models are")] = MODELS_DIR,
    secrets: Annotated[
        Path | None,
        typer.Option(
            help="holds a folder of files for each Secret that spec.safety, gateway.results and provenance.c2pa name"
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=0, max=1024, help="CPU threads a worker; 0 = share the cores")] = 0,
) -> None:
    """Start gateway and workers from a pool file; Ctrl-C drains."""
    options = LocalOptions(
        pool,
        listen,
        folder,
        profile=profile,
        embedder=embedder,
        models_dir=models_dir,
        threads=threads,
        secrets=secrets,
        listen_http=listen_http,
        playground=True,
    )
    run(run_local(console, options))


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
        if not self.live:
            self._console.print(f"{name}: {state}", markup=False)
            return
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(name, total=1)
        task = self._bar.task_ids[self._tasks[name]]
        wording = STARTING.get(name, "loading and warming the model") if state == "starting" else state
        self._bar.update(task, description=f"{name}: {wording}", completed=1 if state == "ready" else 0)


async def run_local(console: Console, options: LocalOptions) -> None:
    """Bring a pool up, serve until Ctrl-C or SIGTERM, drain."""
    stop = stop_on_signals()
    bar = StartBar(console)
    pool = LocalPool(options, bar.report)
    with bar:
        starting = asyncio.ensure_future(pool.__aenter__())
        await _first_of(starting, stop)
    if not starting.done() or starting.cancelled():
        return
    starting.result()
    try:
        console.print(f"\npool [bold]{pool.pool.metadata.name}[/bold] serves at [bold]{pool.address}[/bold] (gRPC)")
        if pool.http_address:
            console.print(f"and at [bold]http://{pool.http_address}/v1[/bold] (OpenAI Images API)")
            console.print(f"playground: open [bold]http://{pool.http_address}/[/bold] in a browser")
        for process in [*pool.workers, *(one for one in (pool.auditor, pool.gateway) if one is not None)]:
            metrics = f"http://{process.metrics_address}/metrics"
            held = pool.model_of(process)
            name = f"{process.name} ({held})" if held else process.name
            console.print(f"  {name:12} gRPC {process.address or 'starting':22} metrics {metrics}")
        for sentence in pool.below_floor:
            console.print(f"[bold yellow]IDLE WORKERS[/bold yellow]: {sentence}")
        if pool.auditor is not None and (part := pool.pool.spec.quality) is not None:
            corrects = "corrects the promised quality" if part.recalibrate else "changes nothing"
            console.print(
                f"{part.audit_per_mille} of 1000 approximated images are audited by {part.judge}, which {corrects}: "
                f"t2i_audit_loss at http://{pool.auditor.metrics_address}/metrics"
            )
        console.print(
            "\n[bold yellow]SECURITY IS OFF[/bold yellow]: local mode has no TLS and believes every tenant name; "
            "for this machine only, see docs/security.md"
        )
        console.print(f'\ntry   t2ictl generate "a red circle above a blue square" --address {pool.address} -o out.png')
        if pool.http_address:
            console.print(
                f"      curl http://{pool.http_address}/v1/images/generations \\\n{CURL}", markup=False, soft_wrap=True
            )
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
