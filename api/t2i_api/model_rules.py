"""The rules of a pool's models: sizes and components, and workers that hold several models."""

from collections import Counter
from collections.abc import Iterator

from t2i_api.model import ComponentPart, SizePart
from t2i_api.pool import Pool, PoolSpec, WorkerGroupPart
from t2i_api.rule import PoolRule, RuleMistake, none_of


def _unknown_models(spec: PoolSpec) -> Iterator[RuleMistake]:
    """Levels of a model that no group holds."""
    there = f"there is {', '.join(spec.models)}" if spec.models else "the pool has no model beside spec.model"
    for index, level in enumerate(spec.levels):
        if level.model is not None and level.model not in spec.models:
            yield RuleMistake(
                f".levels.{index}.model",
                f"no group of workerGroups holds a model called {level.model!r}; {there}: name the model of a group, "
                "or leave it out for spec.model",
            )


def _without_steps(spec: PoolSpec) -> Iterator[RuleMistake]:
    """Levels of another model that leave its schedule open."""
    for index, level in enumerate(spec.levels):
        if level.model is not None and level.num_inference_steps is None:
            full = spec.schedules.get(level.model)
            span = "" if full is None else f", 1 to {full}"
            yield RuleMistake(
                f".levels.{index}.numInferenceSteps",
                f"a level of model {level.model!r} says how many steps it runs{span}: add it",
            )


def _too_long(spec: PoolSpec) -> Iterator[RuleMistake]:
    """Levels that run longer than their model."""
    for index, level in enumerate(spec.levels):
        full = spec.schedules.get(level.model or "")
        if full is not None and level.num_inference_steps is not None and level.num_inference_steps > full:
            yield RuleMistake(
                f".levels.{index}.numInferenceSteps",
                f"{level.num_inference_steps} is more than the {full} of model {level.model!r}: lower it",
            )


def _guides_in_vain(spec: PoolSpec) -> Iterator[RuleMistake]:
    """Levels that leave out guidance of a model that has none."""
    for index, level in enumerate(spec.levels):
        model = spec.models.get(level.model or "")
        if model is not None and level.guided_steps is not None and model.guidance_scale_percent <= UNGUIDED_PERCENT:
            yield RuleMistake(
                f".levels.{index}.guidedSteps",
                f"model {level.model!r} draws without guidance (guidanceScalePercent {model.guidance_scale_percent}), "
                "so there is none to leave out: remove guidedSteps",
            )


def _disagreements(spec: PoolSpec) -> Iterator[RuleMistake]:
    """Groups whose model is another one than that of an earlier group, under its name."""
    first: dict[str, WorkerGroupPart] = {}
    for index, group in enumerate(spec.worker_groups):
        if group.model is None:
            continue
        earlier = first.setdefault(group.model.name, group)
        if earlier.model is not None and earlier.model != group.model:
            mine, theirs = (part.model_dump(by_alias=True, mode="json") for part in (group.model, earlier.model))
            field = next(name for name in mine if mine[name] != theirs[name])
            yield RuleMistake(
                f".workerGroups.{index}.model.{field}",
                f"group {group.name} says {_told(mine[field])} and group {earlier.name} {_told(theirs[field])}, but "
                f"both call their model {group.model.name!r}: make the models equal, or name one otherwise",
            )


def _told(value: object) -> str:
    return "nothing" if value is None else f"{value!r:.80}"


def _fills_groups(spec: PoolSpec) -> bool:
    """Whether a Fixed mix has as many workers at levels of each other model as hold it."""
    held, mixed = Counter[str](), Counter[str]()
    for group in spec.worker_groups:
        held[spec.group_models[group.name]] += group.workers
    for part in spec.mix.workers:
        mixed[part.model or ""] += part.workers
    return all(held[name] == mixed[name] for name in spec.models)


def _names_of_own_model(pool: Pool) -> Iterator[RuleMistake]:
    """Models that are called as spec.model is: by the pool's name, by its source's, or as the reference."""
    taken = {pool.metadata.name, pool.spec.model.source.removeprefix(BUILTIN), REFERENCE}
    for index, group in enumerate(pool.spec.worker_groups):
        if group.model is not None and group.model.name in taken:
            yield RuleMistake(
                f".spec.workerGroups.{index}.model.name",
                f"clients call spec.model {group.model.name!r}, as the pool's name, that of its source and {REFERENCE} "
                f"do: name the model of group {group.name} otherwise",
            )


BUILTIN = "builtin://"
UNGUIDED_PERCENT = 100  # of guidanceScalePercent: off
REFERENCE = "reference"  # what clients may call spec.model in a pool of several models
MOST_TOGETHER = 24  # of the 32 levels that a document holds, so that the default ladder has room beside
# In CEL, seen from the spec.
_FULL = "g.model.?numInferenceSteps.orValue(self.model.numInferenceSteps)"
_GUIDANCE = "g.model.?guidanceScalePercent.orValue(self.model.guidanceScalePercent)"

MODELS = (
    PoolRule[PoolSpec](
        holds=lambda spec: len(spec.other_models) < len(spec.worker_groups),
        cel="self.workerGroups.exists(g, !has(g.model))",
        message="at least one group must hold spec.model, which all quality is measured against: leave out the model "
        "of one group",
        field=".workerGroups",
    ),
    PoolRule[PoolSpec](
        holds=none_of(_disagreements),
        mistakes=_disagreements,
        cel="self.workerGroups.all(a, !has(a.model) || self.workerGroups.all(b, !has(b.model) || "
        "a.model.name != b.model.name || a.model == b.model))",
        message="groups that name a model alike must hold the same one: make the models equal, or name one otherwise",
        field=".workerGroups",
    ),
    PoolRule[PoolSpec](
        holds=lambda spec: all(level.skipped_steps == 0 for level in spec.levels if level.model is not None),
        cel="self.levels.all(l, !has(l.model) || l.skippedSteps == 0)",
        message="a level of another model skips no steps, as latents are stored of the pool's own model only: leave "
        "out its skippedSteps",
        field=".levels",
    ),
    PoolRule[PoolSpec](
        holds=none_of(_unknown_models),
        mistakes=_unknown_models,
        cel="self.levels.all(l, !has(l.model) || self.workerGroups.exists(g, has(g.model) && g.model.name == l.model))",
        message="the model of a level is one that workerGroups hold, called by its own name: name one, or leave "
        "it out for spec.model",
        field=".levels",
    ),
    PoolRule[PoolSpec](
        holds=none_of(_without_steps),
        mistakes=_without_steps,
        cel="self.levels.all(l, !has(l.model) || has(l.numInferenceSteps))",
        message="a level of another model says how many steps it runs: add its numInferenceSteps",
        field=".levels",
    ),
    PoolRule[PoolSpec](
        holds=none_of(_too_long),
        mistakes=_too_long,
        cel="self.levels.all(l, !has(l.model) || !has(l.numInferenceSteps) || self.workerGroups.all(g, "
        f"!has(g.model) || g.model.name != l.model || l.numInferenceSteps <= {_FULL}))",
        message="a level of another model runs at most that model's numInferenceSteps: lower the level's",
        field=".levels",
    ),
    PoolRule[PoolSpec](
        holds=none_of(_guides_in_vain),
        mistakes=_guides_in_vain,
        cel="self.levels.all(l, !has(l.model) || !has(l.guidedSteps) || self.workerGroups.all(g, !has(g.model) || "
        f"g.model.name != l.model || {_GUIDANCE} > {UNGUIDED_PERCENT}))",
        message="a level with guidedSteps is of a model that draws with guidance: remove guidedSteps, or set the "
        "model's guidanceScalePercent",
        field=".levels",
    ),
    PoolRule[PoolSpec](
        holds=lambda spec: spec.mix.moves == "None" or (bool(spec.models) and spec.mix.mode == "Auto"),
        cel="self.mix.moves == 'None' || (self.mix.mode == 'Auto' && self.workerGroups.exists(g, has(g.model)))",
        message="moves Reload is for mode Auto in pools whose workerGroups hold several models: set moves to None, or "
        "give a group a model",
        field=".mix.moves",
    ),
    PoolRule[PoolSpec](
        holds=lambda spec: not spec.other_models or len(spec.levels) + len(spec.other_models) <= MOST_TOGETHER,
        cel="!self.workerGroups.exists(g, has(g.model)) || "
        f"size(self.levels) + size(self.workerGroups.filter(g, has(g.model))) <= {MOST_TOGETHER}",
        message=f"levels and groups with a model may be {MOST_TOGETHER} together, as each model adds levels of its "
        "own: name fewer levels, or merge groups",
        field=".levels",
    ),
    PoolRule[PoolSpec](
        holds=lambda spec: spec.mix.mode != "Fixed" or _fills_groups(spec),
        cel="self.mix.mode != 'Fixed' || self.workerGroups.all(g, !has(g.model) || "
        "self.workerGroups.filter(h, has(h.model) && h.model.name == g.model.name).map(h, h.workers).sum() == "
        "self.mix.workers.filter(w, has(w.model) && w.model == g.model.name).map(w, w.workers).sum())",
        message="in a Fixed mix the workers at levels of each model must be as many as hold it: make mix.workers fit "
        "the workerGroups of each model",
        field=".mix",
    ),
)

NAMES_OF_MODELS = PoolRule[Pool](
    holds=none_of(_names_of_own_model),
    mistakes=_names_of_own_model,
    cel="self.spec.workerGroups.all(g, !has(g.model) || (g.model.name != self.metadata.name && "
    f"g.model.name != '{REFERENCE}' && '{BUILTIN}' + g.model.name != self.spec.model.source))",
    message=f"the pool's name, that of its source and {REFERENCE} are what clients call spec.model: name the group's "
    "model otherwise",
    field=".spec.workerGroups",
)

GROUP_MODEL = PoolRule[WorkerGroupPart](
    holds=None,
    cel="has(self.model) == has(oldSelf.model) && (!has(self.model) || self.model == oldSelf.model)",
    message="model is immutable: the group's workers keep it warm; add another group and remove this one",
)

SIZES = (
    PoolRule[SizePart](
        holds=lambda part: part.largest.width >= part.width and part.largest.height >= part.height,
        cel="self.?maxWidth.orValue(self.width) >= self.width && self.?maxHeight.orValue(self.height) >= self.height",
        message="maxWidth and maxHeight must not be less than width and height: raise them, or leave them out",
    ),
    PoolRule[SizePart](
        holds=lambda part: all(side % part.multiple_of == 0 for side in (*part.smallest, *part.largest)),
        cel="[self.width, self.height, self.?maxWidth.orValue(self.width), self.?maxHeight.orValue(self.height)]"
        ".all(side, side % self.multipleOf == 0)",
        message="width, height, maxWidth and maxHeight must be multiples of multipleOf: change them, or lower it",
    ),
)

COMPONENTS = (
    PoolRule[ComponentPart](
        holds=lambda part: (part.kind == "IPAdapter") == (part.weight_name is not None),
        cel="(self.kind == 'IPAdapter') == has(self.weightName)",
        message="weightName and kind IPAdapter belong together: name the file in its source, or remove weightName",
        field=".weightName",
    ),
    PoolRule[ComponentPart](
        holds=lambda part: part.kind == "IPAdapter" or part.image_encoder is None,
        cel="self.kind == 'IPAdapter' || !has(self.imageEncoder)",
        message="imageEncoder is for kind IPAdapter: remove it",
        field=".imageEncoder",
    ),
)
