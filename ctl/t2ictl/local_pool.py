"""A whole pool on this machine: workers, a gateway and maybe an auditor as processes, from a pool file."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import grpc
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from t2i_api.parse import PoolError, parse_pool
from t2i_api.pool import Pool
from t2i_policy.backoff import Backoff
from t2i_policy.planning.classes import build_classes, models_below_floor
from t2i_policy.profile import ProfileError
from t2i_policy.profile_document import parse_profile
from t2i_runtime.errors import AddressUnusable
from t2i_runtime.grpc_options import NO_PROXY
from t2i_runtime.listening import listening_socket
from t2i_sources import MODEL, SourceMissing, builtin_folder, find_folder
from t2ictl.errors import InputInvalid, StartFailed
from t2ictl.local_secrets import check_secrets, secret_arguments
from t2ictl.processes import ServerProcess

MODELS_DIR = Path("models")
GPUS_OF_DRIVER = Path("/proc/driver/nvidia/gpus")
DEFAULT_LISTEN = "127.0.0.1:50051"
DEFAULT_LISTEN_HTTP = "127.0.0.1:8080"
START_LIMIT_S = 600.0  # a large model may come from a slow disk
SERVING_LIMIT_S = 60.0
STOP_LIMIT_S = 40.0
HALT_LIMIT_S = 3.0
RESTARTS = Backoff(first_s=1.0, most_s=60.0)
ANY_PORT = "127.0.0.1:0"
Report = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """`folder` None = a temporary one that goes at the end. `profile` None = the builtin model's own, `embedder` None =
    the pool's. `secrets` holds a folder for each Secret that the pool's checks name."""

    pool_file: Path
    listen: str = DEFAULT_LISTEN
    folder: Path | None = None
    profile: Path | None = None
    embedder: Path | None = None
    models_dir: Path = MODELS_DIR
    threads: int = 0
    max_batch: int = 8
    secrets: Path | None = None
    listen_http: str = ""
    playground: bool = False


def read_pool(path: Path) -> Pool:
    """The pool document.

    Raises:
        InputInvalid: not readable or not valid.
    """
    try:
        return parse_pool(path.read_text())
    except OSError as error:
        raise InputInvalid(f"the pool file cannot be read: {error.strerror}: {path}") from error
    except PoolError as error:
        raise InputInvalid(f"{path.name} is not a valid pool:\n{error}") from error


def check_model(pool: Pool, models_dir: Path) -> None:
    """Look for the models of all groups before anything is started. A hub's is left to the worker, which downloads it.

    Raises:
        InputInvalid: there is none where the pool says.
    """
    spec = pool.spec
    names = dict.fromkeys(spec.group_models[group.name] for group in spec.worker_groups if group.engine != "simulated")
    for name in names:
        source = spec.model_called(name).source
        if source.startswith("hf://"):
            continue
        try:
            find_folder(MODEL, source, models_dir)
        except SourceMissing as error:
            raise InputInvalid(f"model {name}: {error}" if name else str(error)) from error


def with_builtin_profile(options: LocalOptions, pool: Pool) -> LocalOptions:
    """The profile filled in from the builtin model if it was left out.

    Raises:
        InputInvalid: there is no profile.
    """
    builtin = builtin_folder(pool.spec.model.source)
    if builtin is not None:
        options = replace(options, profile=options.profile or builtin / "profile.json")
    if options.profile is None or not options.profile.exists():
        raise InputInvalid("no profile: measure one with `t2ictl profile --pool FILE`, then give it with --profile")
    return options


def count_gpus() -> int:
    """CUDA devices that workers started here would see. Asking the driver's files needs no torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([one for one in visible.split(",") if one.strip() not in ("", "-1")])
    return len([*GPUS_OF_DRIVER.iterdir()]) if GPUS_OF_DRIVER.is_dir() else 0


def check_free(addresses: Mapping[str, str]) -> None:
    """Look at the addresses before a model is loaded. Option -> address; empty = not wanted.

    Raises:
        InputInvalid: one cannot be listened on; names the option.
    """
    for option, address in addresses.items():
        try:
            if address:
                listening_socket(address).close()
        except AddressUnusable as error:
            raise InputInvalid(f"{error}; choose another address with {option}") from error


def free_addresses(count: int) -> list[str]:
    """Nobody listens on them now. They are for a process whose addresses others must know before it is ready."""
    with ExitStack() as opened:
        sockets = [opened.enter_context(listening_socket(ANY_PORT)) for _ in range(count)]
        return ["{}:{}".format(*one.getsockname()) for one in sockets]


async def _wait_serving(gateway: ServerProcess) -> None:
    """Return when the gateway has found its workers, by its health service.

    Raises:
        StartFailed: not within the limit; with the end of its log.
    """
    async with grpc.aio.insecure_channel(gateway.address, options=NO_PROXY) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            async for reply in stub.Watch(health_pb2.HealthCheckRequest(), timeout=SERVING_LIMIT_S):
                if reply.status == health_pb2.HealthCheckResponse.SERVING:
                    return
        except grpc.aio.AioRpcError as error:
            raise StartFailed(f"{gateway.name} did not find its workers:\n{gateway.log_tail()}") from error


@dataclass(slots=True)
class LocalPool:
    """An async context manager: inside it, the gateway serves at `address`; afterwards everything has drained."""

    options: LocalOptions
    report: Report = lambda _name, _state: None
    with_gateway: bool = True
    pool: Pool = field(init=False)
    workers: list[ServerProcess] = field(default_factory=list)
    gateway: ServerProcess | None = None
    auditor: ServerProcess | None = None
    below_floor: tuple[str, ...] = ()  # a sentence for each model that the floor forbids to all requests
    _folder: Path = field(init=False)
    _document: Path | None = None
    _auditor_address: str | None = None
    _auditor_start: "asyncio.Task[None] | None" = None

    async def __aenter__(self) -> Self:
        self.pool = read_pool(self.options.pool_file)
        if self.with_gateway:
            check_free({"--listen": self.options.listen, "--listen-http": self.options.listen_http})
        check_model(self.pool, self.options.models_dir)
        if self.with_gateway:
            check_secrets(self.pool.spec, self.options.secrets, with_http=bool(self.options.listen_http))
        if self.with_gateway or any(group.engine == "simulated" for group in self.pool.spec.worker_groups):
            self.options = with_builtin_profile(self.options, self.pool)
        self._folder = self.options.folder or Path(tempfile.mkdtemp(prefix="t2i-local-"))
        self._folder.mkdir(parents=True, exist_ok=True)
        self._document = self._write_document()
        self.workers = self._make_workers()
        try:
            await self._bring_up_workers()
            if self.with_gateway:
                self._start_auditor()
                self.gateway = self._make_gateway()
                await self._unless_auditor_ends(self._bring_up_gateway(self.gateway))
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stop()

    def model_of(self, process: ServerProcess) -> str:
        """The model that a worker starts with, by name; empty: the pool's own, and for other processes."""
        models = [self.pool.spec.group_models[group.name] for group in self.pool.spec.worker_groups]
        sizes = [group.workers for group in self.pool.spec.worker_groups]
        of_workers = [model for model, size in zip(models, sizes, strict=True) for _ in range(size)]
        held = zip(self.workers, of_workers, strict=True)
        return next((model for worker, model in held if worker is process), "")

    @property
    def address(self) -> str:
        return self.gateway.address if self.gateway is not None else ""

    @property
    def http_address(self) -> str:
        """Of the OpenAI Images API; empty if it is not served."""
        return self.gateway.http_address if self.gateway is not None else ""

    async def auditor_ready(self) -> None:
        """Return when the auditor can judge, or where there is none. The pool serves before.

        Raises:
            StartFailed: it ended before, or took too long.
        """
        if self._auditor_start is not None:
            await asyncio.shield(self._auditor_start)

    async def supervise(self) -> None:
        """Restart workers and auditor that die, at their old addresses, until cancelled; ends when the gateway does."""
        async with asyncio.TaskGroup() as group:
            watching = [group.create_task(self._keep_up(worker)) for worker in self.workers]
            if self.auditor is not None:
                watching.append(group.create_task(self._keep_up(self.auditor, self._auditor_start)))
            if self.gateway is not None and self.gateway.process is not None:
                await self.gateway.process.wait()
            for task in watching:
                task.cancel()

    async def _keep_up(self, process: ServerProcess, starting: Awaitable[None] | None = None) -> None:
        """Without end: each end and each failed start is told with its reason, and pauses grow until a start succeeds.
        `starting`: a start that is under way."""
        failures = 0
        while True:
            try:
                if starting is not None:
                    await starting
                failures = 0
                why = await process.ended()
            except (StartFailed, OSError) as error:
                why = str(error).removeprefix(f"{process.name}: ")
                await process.stop(HALT_LIMIT_S)  # one that was too slow
            failures += 1
            pause_s = RESTARTS.pause_s(failures)
            self.report(process.name, f"{why}\nIt is started again in {pause_s:.0f} s.")
            await asyncio.sleep(pause_s)
            process.keep_addresses()
            starting = self._bring_up(process)

    async def _bring_up_workers(self) -> None:
        """All at once; the first that fails ends the wait for the others."""
        try:
            async with asyncio.TaskGroup() as group:
                for worker in self.workers:
                    group.create_task(self._bring_up(worker))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed

    async def _bring_up_gateway(self, gateway: ServerProcess) -> None:
        await self._bring_up(gateway)
        await _wait_serving(gateway)

    def _start_auditor(self) -> None:
        """Where the pool's quality is audited. Its judge may take minutes, or be away: nobody waits for it."""
        if self.pool.spec.quality is not None:
            self.auditor = self._make_auditor()
            self._auditor_start = asyncio.create_task(self._bring_up(self.auditor))

    async def _unless_auditor_ends(self, serving: Coroutine[Any, Any, None]) -> None:
        """Return when the pool serves.

        Raises:
            StartFailed: it does not, or the auditor ended first, e.g. because its judge is not the profile's.
        """
        work = asyncio.create_task(serving)
        try:
            started = [work] if self._auditor_start is None else [work, self._auditor_start]
            await asyncio.wait(started, return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and self.auditor is not None and not self.auditor.running:
                await self.auditor_ready()
            await work
        finally:
            work.cancel()
            await asyncio.wait([work])

    async def _bring_up(self, process: ServerProcess) -> None:
        self.report(process.name, "starting")
        await process.start()
        await process.wait_ready(START_LIMIT_S)
        self.report(process.name, "ready")

    async def _stop(self) -> None:
        """The gateway first, so that nothing is sent to a worker that goes."""
        if self.gateway is not None:
            await self._stop_one(self.gateway)
        if self._auditor_start is not None:
            self._auditor_start.cancel()
            await asyncio.wait([self._auditor_start])
        others = [*self.workers, *([] if self.auditor is None else [self.auditor])]
        await asyncio.gather(*(self._stop_one(process) for process in others))
        if self.options.folder is None:
            shutil.rmtree(self._folder, ignore_errors=True)

    async def _stop_one(self, process: ServerProcess) -> None:
        """One that was never ready has nothing to drain."""
        if process.running:
            self.report(process.name, "draining" if process.address else "stopping")
            await process.stop(STOP_LIMIT_S if process.address else HALT_LIMIT_S)

    @property
    def _store_url(self) -> str:
        return self.pool.spec.cache.store_url or (self._folder / "latents").resolve().as_uri()

    @property
    def _pool_file(self) -> Path:
        return self._document or self.options.pool_file

    def _write_document(self) -> Path:
        """The file that all processes read: with the levels that the profile stands for, if the pool names none."""
        if self.options.profile is None:
            return self.options.pool_file
        try:
            profile = parse_profile(self.options.profile.read_text())
        except ProfileError:
            return self.options.pool_file  # who serves by it says at its start what is wrong with it
        try:
            spec = self.pool.spec.filled_in(self.pool.spec.choose_ladder(profile))
        except ProfileError as error:
            raise InputInvalid(f"{self.options.profile}: {error}") from error
        slo = spec.slo
        classes = build_classes(spec.ladder, profile, slo.max_loss, slo.harmless_loss)
        self.below_floor = models_below_floor(classes, spec.ladder, profile, slo.max_loss)
        if spec is self.pool.spec:
            return self.options.pool_file
        self.pool = self.pool.model_copy(update={"spec": spec})
        path = self._folder / "pool-with-levels.yaml"  # never the file of the user
        path.write_text(yaml.safe_dump(self.pool.model_dump(by_alias=True, mode="json", exclude_none=True)))
        return path

    def _make_workers(self) -> list[ServerProcess]:
        names = [(group, f"{group.name}-{n}") for group in self.pool.spec.worker_groups for n in range(group.workers)]
        threads = self.options.threads or max(1, (os.cpu_count() or 1) // len(names))
        gpus = count_gpus()
        made = []
        for number, (group, name) in enumerate(names):
            arguments = self._worker_arguments(group.name, name, threads)
            if gpus and group.engine != "simulated":
                arguments += ["--device", f"cuda:{number % gpus}"]
            made.append(ServerProcess(name, "t2i_worker", arguments, self._folder))
        return made

    def _worker_arguments(self, group: str, name: str, threads: int) -> list[str]:
        options = self.options
        arguments = ["--pool", str(self._pool_file), "--group", group, "--name", name, "--store", self._store_url]
        arguments += ["--models-dir", str(options.models_dir), "--threads", str(threads)]
        arguments += ["--max-batch", str(options.max_batch)]
        return [*arguments, "--profile", str(options.profile)] if options.profile is not None else arguments

    def _make_gateway(self) -> ServerProcess:
        options = self.options
        addresses = ",".join(worker.address for worker in self.workers)
        arguments = ["--pool", str(self._pool_file), "--workers", addresses, "--listen", options.listen, "--local"]
        arguments += ["--listen-http", options.listen_http, *(["--playground"] if options.playground else [])]
        arguments += ["--gateways", "1"]  # whatever the document says of a cluster: here this one is alone
        arguments += ["--store", self._store_url, "--profile", str(options.profile)]
        embedder = str(options.embedder or self.pool.spec.model.embedder_source)
        arguments += ["--embedder", embedder, "--models-dir", str(options.models_dir)]
        arguments += secret_arguments(self.pool.spec, options.secrets)
        arguments += [] if self._auditor_address is None else ["--auditor", self._auditor_address]
        return ServerProcess("gateway", "t2i_gateway", arguments, self._folder)

    def _make_auditor(self) -> ServerProcess:
        """Its corrections lie beside the logs, and are there again when the same folder is used again."""
        options = self.options
        arguments = ["--pool", str(self._pool_file), "--profile", str(options.profile)]
        arguments += ["--models-dir", str(options.models_dir)]
        arguments += ["--corrections", str(self._folder / "corrections.json"), "--save-corrections"]
        self._auditor_address, metrics, control = free_addresses(3)
        arguments += ["--listen", self._auditor_address, "--metrics-listen", metrics, "--control-listen", control]
        made = ServerProcess("auditor", "t2i_auditor", arguments, self._folder)
        made.metrics_address, made.control_address = metrics, control  # told before it is ready
        return made
