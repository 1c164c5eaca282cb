"""The rules of a pool's models: sizes and components, and workers that hold several models."""

from t2i_api.levels import LevelPart
from t2i_api.model import ComponentPart, SizePart
from t2i_api.pool import PoolSpec, WorkerGroupPart
from t2i_api.rule import PoolRule


def _fits(spec: PoolSpec, level: LevelPart) -> bool:
    """A level of another model names one, and how many of its steps it runs."""
    if level.model is None:
        return True
    full = spec.schedules.get(level.model)
    return full is not None and level.num_inference_steps is not None and level.num_inference_steps <= full


def _agree(spec: PoolSpec) -> bool:
    """Whether all groups that hold a model of one name hold the same."""
    return all(spec.models[group.model.name] == group.model.beside(spec.model) for group in _others(spec))


def _others(spec: PoolSpec) -> list[WorkerGroupPart]:
    return [group for group in spec.worker_groups if group.model is not None]


# In CEL, seen from the spec.
_FULL = "g.model.?numInferenceSteps.orValue(self.model.numInferenceSteps)"

MODELS = (
    PoolRule[PoolSpec](
        holds=lambda spec: len(_others(spec)) < len(spec.worker_groups),
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
