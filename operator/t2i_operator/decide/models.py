"""Workers by model, in pools of several: which one each is to hold, which of them serve it, and what status says of it.

A worker is to hold the model of the level that the plan puts it at. Before any plan it is to hold that of its group. It
serves once it is ready and no gateway knows it to hold another one. A pod that starts anew begins with the model of its
group, and is told again by the gateways.
"""

from collections.abc import Iterator, Mapping

from t2i_api.pool import PoolSpec
from t2i_api.status import GroupStatus, ModelStatus, MoveStatus, PoolStatus
from t2i_operator.decide.types import Announce, Holding, ModelSeen, Observed, PodSeen
from t2i_policy.planning.assign import Numbered
from t2i_policy.planning.plan import Numbers

MODEL_NOT_SERVED = "ModelNotServed"  # the reason of conditions and events
REFERENCE = "reference"  # what status calls spec.model, which has no name of its own


def spoken(model: str) -> str:
    """A model's name, for people."""
    return model or REFERENCE


def moves_on(spec: PoolSpec) -> bool:
    """Whether workers may hold another model than that of their group."""
    return spec.mix.moves == "Reload"


def assigned_models(spec: PoolSpec, numbers: Numbers) -> dict[Numbered, str]:
    """The model that each worker is to hold."""
    models = {
        Numbered(group, number): spec.group_models[group]
        for group, size in spec.group_sizes.items()
        for number in range(size)
    }
    if moves_on(spec):
        known = {"", *spec.models}
        placed = ((group, level, which) for (group, level), which in numbers.items() if level.model in known)
        models |= {
            worker: level.model
            for group, level, which in placed
            for worker in (Numbered(group, number) for number in which)
            if worker in models
        }
    return models


def move_of(seen: Observed) -> MoveStatus | None:
    """The move that is under way, as the status has it."""
    return PoolStatus.model_validate(seen.status).move


def told_move(move: MoveStatus) -> str:
    """In a sentence."""
    return f"{move.worker} gives up {move.from_model} for {move.to_model}: {move.reason}."


def told_by_gateways(seen: Observed) -> dict[str, ModelSeen]:
    """By worker, what the first gateway says that has heard of it; one that serves counts before one that does not."""
    told: dict[str, ModelSeen] = {}
    for report in seen.reports:
        for worker, one in report.held.items():
            if worker not in told or (one.ready and not told[worker].ready):
                told[worker] = one
    return told


def serving_numbers(
    seen: Observed, spec: PoolSpec, assigned: Mapping[Numbered, str], mover: str = ""
) -> dict[Holding, frozenset[int]]:
    """By group and model, the workers that are ready with it; those that fail their requests, or are beyond their
    group's size, left out. `mover`: the pod that is on its way to another model."""
    told = told_by_gateways(seen) if moves_on(spec) else {}
    found: dict[Holding, set[int]] = {(group, model): set() for group, model in spec.group_models.items()}
    for pod in seen.workers:
        worker = _numbered(pod)
        if worker not in assigned or not pod.ready or pod.name in seen.failing:
            continue
        if _serves(assigned[worker], told.get(pod.name), moving=pod.name == mover):
            found.setdefault((worker.group, assigned[worker]), set()).add(worker.number)
    return {holding: frozenset(numbers) for holding, numbers in found.items()}


def strays(seen: Observed, spec: PoolSpec, assigned: Mapping[Numbered, str], mover: str) -> list[str]:
    """Ready workers that hold another model than they are to, as one does whose pod started anew."""
    told = told_by_gateways(seen) if moves_on(spec) else {}
    heard = [(pod, told[pod.name]) for pod in seen.workers if pod.ready and pod.name in told and pod.name != mover]
    return sorted(pod.name for pod, one in heard if assigned.get(_numbered(pod), one.model) != one.model)


def _serves(model: str, heard: ModelSeen | None, moving: bool) -> bool:
    """A ready worker that moves serves when a gateway says so; others until one says that they hold another model."""
    if heard is None:
        return not moving
    return heard.model == model and (heard.ready or not moving)


def _numbered(pod: PodSeen) -> Numbered:
    return Numbered(pod.group or "", -1 if pod.number is None else pod.number)


def of_groups(serving: Mapping[Holding, frozenset[int]]) -> dict[str, frozenset[int]]:
    """The same by group, whatever they hold."""
    found: dict[str, frozenset[int]] = {}
    for (group, _), numbers in serving.items():
        found[group] = found.get(group, frozenset()) | numbers
    return found


def render_groups(spec: PoolSpec, ready: Mapping[str, frozenset[int]]) -> tuple[GroupStatus, ...] | None:
    """None in pools of one group."""
    if len(spec.worker_groups) == 1:
        return None
    return tuple(
        GroupStatus(
            name=group.name,
            model=spoken(spec.group_models[group.name]),
            workers=group.workers,
            ready=len(ready.get(group.name, ())),
        )
        for group in spec.worker_groups
    )


def count_models(spec: PoolSpec, assigned: Mapping[Numbered, str]) -> dict[str, int]:
    """Workers that are to hold each of the pool's models, its own first."""
    return {model: sum(one == model for one in assigned.values()) for model in ("", *spec.models)}


def ready_by_model(serving: Mapping[Holding, frozenset[int]]) -> dict[str, int]:
    """Workers that serve each model."""
    counts: dict[str, int] = {}
    for (_, model), numbers in serving.items():
        counts[model] = counts.get(model, 0) + len(numbers)
    return counts


def render_models(
    spec: PoolSpec,
    assigned: Mapping[Numbered, str],
    serving: Mapping[Holding, frozenset[int]],
    reload_ms: Mapping[str, int],
) -> tuple[ModelStatus, ...] | None:
    """None in pools of one model. `reload_ms`: what was measured, by the name in status."""
    if not spec.models:
        return None
    ready = ready_by_model(serving)
    return tuple(
        ModelStatus(
            name=spoken(model),
            workers=count,
            ready=ready.get(model, 0),
            reload_milliseconds=reload_ms.get(spoken(model)),
        )
        for model, count in count_models(spec, assigned).items()
    )


def lost_models(seen: Observed, status: PoolStatus) -> Iterator[Announce]:
    """Models that were served until now. One that never was is still on its way."""
    before = {one.name: one.ready for one in PoolStatus.model_validate(seen.status).models or ()}
    for one in status.models or ():
        if not one.ready and before.get(one.name):
            yield Announce(MODEL_NOT_SERVED, f"No worker serves {one.name} any more.", warning=True)


def reload_times(seen: Observed) -> dict[str, int]:
    """What loading each model took the last time, in milliseconds, by its name in status."""
    models = PoolStatus.model_validate(seen.status).models or ()
    return {one.name: one.reload_milliseconds for one in models if one.reload_milliseconds is not None}
