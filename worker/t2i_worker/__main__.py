"""`python -m t2i_worker`: one worker process."""

import asyncio
import logging
from importlib import import_module

from t2i_api.parse import PoolError, parse_pool
from t2i_api.pool import Pool, WorkerGroupPart
from t2i_policy.profile import ProfileError
from t2i_policy.readiness import ReadyReason
from t2i_runtime.errors import SecurityError
from t2i_runtime.logs import set_up_logs
from t2i_runtime.process import end_now
from t2i_runtime.tracing import traces_sent
from t2i_worker.errors import EngineLost, ModelError, StoppedEarly
from t2i_worker.held_model import HeldModel
from t2i_worker.server import serve
from t2i_worker.settings import WorkerSettings, parse_arguments
from t2i_worker.starting import SimulatedModels, find_model_files

log = logging.getLogger("t2i_worker")
EXIT_CODES = {ReadyReason.DEVICE_LOST: 3, ReadyReason.LOOP_ENDED: 4}


def main() -> int:
    """Exit code 0 after a drain or when stopped while it starts; 2 when it cannot start; 3 and 4 as in EXIT_CODES."""
    set_up_logs()
    settings = parse_arguments()
    try:
        pool = parse_pool(settings.pool.read_text())
        group = _group(pool, settings.group)
        about = {"t2i.pool": pool.metadata.name, "t2i.group": group.name, "service.instance.id": settings.name}
        with traces_sent("t2i-worker", about):
            asyncio.run(_serve(settings, pool, group))
    except EngineLost as error:
        log.critical("the worker ends, to be started anew: %s", error)
        end_now(EXIT_CODES[error.reason])  # a thread that waits for a lost device would keep the interpreter from it
    except (OSError, PoolError, ProfileError, ModelError, SecurityError) as error:
        log.critical("the worker cannot start: %s", error)
        return 2
    return 0


async def _serve(settings: WorkerSettings, pool: Pool, group: WorkerGroupPart) -> None:
    try:
        await serve(settings, lambda: make_engine(settings, pool, group))
    except StoppedEarly as stopped:
        log.info("%s", stopped)
        end_now(0)  # a thread that loads a model cannot be told to stop, and the event loop would wait for it


def _group(pool: Pool, name: str) -> WorkerGroupPart:
    for group in pool.spec.worker_groups:
        if group.name == name:
            return group
    raise PoolError(f"workerGroups: there is no group {name!r}")


async def make_engine(settings: WorkerSettings, pool: Pool, group: WorkerGroupPart) -> HeldModel:
    """A warm engine of the group's model, which orders may replace.

    Raises:
        ModelError, ProfileError: the worker cannot start with this model.
        EngineLost: the device fails.
    """
    spec, name = pool.spec, pool.spec.group_models[group.name]
    models, moves = ("", *spec.models), spec.mix.moves == "Reload"
    if group.engine == "simulated":
        simulated = SimulatedModels(settings, spec)
        return HeldModel(simulated, await simulated.make(name), models, moves)
    # Before torch, which takes its time.
    files = await asyncio.to_thread(find_model_files, spec.model_called(name), settings.models_dir)
    await asyncio.to_thread(import_module, "t2i_worker.start_diffusion")  # probes are answered meanwhile
    from t2i_worker.start_diffusion import DiffusionModels

    maker = DiffusionModels(settings, pool, {name: files})
    engine, _ = await asyncio.gather(maker.make(name), maker.open())
    return HeldModel(maker, engine, models, moves)


if __name__ == "__main__":
    end_now(main())
