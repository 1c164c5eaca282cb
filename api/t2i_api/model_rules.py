"""The rules of a pool's models: sizes and components, and workers that hold several models."""

from collections import Counter

from t2i_api.levels import LevelPart
from t2i_api.model import ComponentPart, SizePart
from t2i_api.pool import Pool, PoolSpec, WorkerGroupPart
from t2i_api.rule import PoolRule


def _fits(spec: PoolSpec, level: LevelPart) -> bool:
    """A level of another model names one, and how many of its steps it runs."""
    if level.model is None:
        return True
    full = spec.schedules.get(level.model)
    return full is not None and level.num_inference_steps is not None and level.num_inference_steps <= full


def _agree(spec: PoolSpec) -> bool:
    """Whether all groups that hold a model of one name hold the same."""
    first = {part.name: part for part in reversed(spec.other_models)}
    return all(part == first[part.name] for part in spec.other_models)


def _fills_groups(spec: PoolSpec) -> bool:
    """Whether a Fixed mix has as many workers at levels of each other model as hold it."""
    held, mixed = Counter[str](), Counter[str]()
    for group in spec.worker_groups:
        held[spec.group_models[group.name]] += group.workers
    for part in spec.mix.workers:
        mixed[part.model or ""] += part.workers
    return all(held[name] == mixed[name] for name in spec.models)


def _names_are_told_apart(pool: Pool) -> bool:
    """Whether no model is called as spec.model is: by the pool's name, by its source's, or as the reference."""
    taken = {pool.metadata.name, pool.spec.model.source.removeprefix(BUILTIN), REFERENCE}
    return taken.isdisjoint(pool.spec.models)


BUILTIN = "builtin://"
REFERENCE = "reference"  # what clients may call spec.model in every pool
MOST_TOGETHER = 24  # of the 32 levels that a document holds, so that the default ladder has room beside
# In CEL, seen from the spec.
_FULL = "g.model.?numInferenceSteps.orValue(self.model.numInferenceSteps)"

MODELS = (
    PoolRule[PoolSpec](
        holds=lambda spec: len(spec.other_models) < len(spec.worker_groups),
        cel="self.workerGroups.exists(g, !has(g.model))",
        message="at least one group must hold spec.model, which all quality is measured against: leave out the model "
        "of one group",
        field=".workerGroups",
    ),
    PoolRule[PoolSpec](
        holds=_agree,
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
        holds=lambda spec: all(_fits(spec, level) for level in spec.levels),
        cel="self.levels.all(l, !has(l.model) || (has(l.numInferenceSteps) && self.workerGroups.exists(g, "
        f"has(g.model) && g.model.name == l.model && l.numInferenceSteps <= {_FULL})))",
        message="a level with model names one of workerGroups, and its numInferenceSteps, at most that model's: add "
        "them, or leave out the level's model",
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
    holds=_names_are_told_apart,
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
