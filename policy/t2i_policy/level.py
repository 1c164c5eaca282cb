"""Levels: the ways to spend less on the warm model, and the ladder of those a pool may use.

A level has coordinates, and each may be left out:

- `skipped_steps`, the paper's K: start from the cached latent of a similar prompt;
- `num_inference_steps`, a shorter schedule, which needs no neighbour;
- `forecast`: after its first two steps a run computes one step in so many. It extrapolates the others from its own
  last outputs (TaylorSeer, arXiv 2503.06923, at the level of outputs);
- `computed_steps`: instead, which steps it computes, as a search on the model found them (BudCache, arXiv 2606.13496);
- `guided_steps`: guidance up to this step only. Later steps run without their unprompted rows;
- `solver`: another noise scheduler, of second order;
- `model`: another model of the pool, by its name. Its levels count its own steps.

What is computed depends on nothing but the level, so its cost is known before a request is admitted: the number of
steps computed, where an unguided one counts half. Steps of two models are different things; what each takes is in the
profile. A level's quality loss is never assumed, only read from a measured profile.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from types import MappingProxyType
from typing import Any

LEAST_FORECAST_STEPS = 5  # of a schedule: of four steps or fewer each decides too much to be forecast
COMPUTED_FIRST = 2  # outputs that a forecast extrapolates
UNGUIDED_COST = 0.5
#: Samplers of second order that run the denoiser once a step.
SOLVERS = ("dpm++-2m", "unipc")
NO_MODELS: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True, order=True)
class Level:
    """`skipped_steps` K of a schedule of `num_inference_steps` N; 0 <= K < N. 0 and "": without that coordinate.

    Raises:
        ValueError: a coordinate is out of range, or does not go with the others.
    """

    skipped_steps: int
    num_inference_steps: int
    forecast: int = 0
    guided_steps: int = 0
    solver: str = ""
    computed_steps: tuple[int, ...] = ()
    model: str = ""
    cost: float = field(init=False, compare=False, repr=False)  # in guided steps of the denoiser

    def __post_init__(self) -> None:
        steps, skipped = self.num_inference_steps, self.skipped_steps
        if steps < 1:
            raise ValueError(f"numInferenceSteps must be at least 1, got {steps}")
        if not 0 <= skipped < steps:
            raise ValueError(f"skippedSteps must be from 0 to numInferenceSteps - 1 = {steps - 1}, got {skipped}")
        if self.forecast and (self.forecast < 2 or self.steps_run < LEAST_FORECAST_STEPS):
            raise ValueError(
                f"forecast must be at least 2, of at least {LEAST_FORECAST_STEPS} steps, got {self.forecast} of "
                f"{self.steps_run}"
            )
        if self.computed_steps:
            self._check_computed()
        if self.guided_steps and not skipped < self.guided_steps < steps:
            raise ValueError(
                f"guidedSteps must be from skippedSteps + 1 to numInferenceSteps - 1 = {steps - 1}, "
                f"got {self.guided_steps}"
            )
        if self.solver and self.solver not in SOLVERS:
            raise ValueError(f"solver must be one of {', '.join(SOLVERS)}, got {self.solver!r}")
        object.__setattr__(self, "cost", _cost(self) if self.forecasts or self.guided_steps else self.steps_run)

    def __eq__(self, other: object) -> bool:
        """Steps first, as most levels differ there: placement compares those of all workers, for every request."""
        if self is other:
            return True
        if not isinstance(other, Level) or self.skipped_steps != other.skipped_steps:
            return False
        return self.num_inference_steps == other.num_inference_steps and self._others == other._others

    @property
    def _others(self) -> tuple[int, int, str, tuple[int, ...], str]:
        return self.forecast, self.guided_steps, self.solver, self.computed_steps, self.model

    def _check_computed(self) -> None:
        computed, first = self.computed_steps, tuple(range(self.skipped_steps, self.skipped_steps + COMPUTED_FIRST))
        if self.forecast:
            raise ValueError("computedSteps and forecast name the same: leave out one")
        if self.steps_run < LEAST_FORECAST_STEPS:
            raise ValueError(f"computedSteps need at least {LEAST_FORECAST_STEPS} steps, got {self.steps_run}")
        if list(computed) != sorted({*computed}) or computed[:COMPUTED_FIRST] != first:
            raise ValueError(f"computedSteps must rise and begin with {list(first)}, got {list(computed)}")
        if computed[-1] >= self.num_inference_steps:
            raise ValueError(f"computedSteps must be below numInferenceSteps = {self.num_inference_steps}")

    @property
    def forecasts(self) -> bool:
        """Whether some of its steps are forecast."""
        return bool(self.forecast or self.computed_steps)

    @property
    def steps_run(self) -> int:
        """Steps that its schedule makes, forecast ones included: what progress counts."""
        return self.num_inference_steps - self.skipped_steps

    @property
    def step_share(self) -> float:
        """What a step of its schedule costs on average, in guided steps of the denoiser."""
        return self.cost / self.steps_run

    def computes(self, step: int, first: int) -> bool:
        """Whether a run that began at step `first` computes this step, and does not forecast it."""
        since = step - first
        if self.computed_steps:
            return since < COMPUTED_FIRST or step in self.computed_steps
        return not self.forecast or since < COMPUTED_FIRST or (since - COMPUTED_FIRST + 1) % self.forecast == 0

    def guides(self, step: int) -> bool:
        return not self.guided_steps or step < self.guided_steps

    @property
    def needs_latent(self) -> bool:
        """True if it starts from a cached latent."""
        return self.skipped_steps > 0

    def label(self, base_steps: int) -> str:
        """`"0"` exact, `"K"` a skip of the full schedule, `"K/N"` on a shorter one: for metrics, tables, summaries.

        Then the other coordinates: `"0+f3+g6+unipc"`. A level of another model names it first: `"turbo:0/4"`.
        """
        full = self.num_inference_steps == base_steps
        steps = str(self.skipped_steps) if full else f"{self.skipped_steps}/{self.num_inference_steps}"
        if self.model:
            steps = f"{self.model}:{self.skipped_steps}/{self.num_inference_steps}"
        return "+".join([steps, *self.marks])

    @property
    def marks(self) -> list[str]:
        """The coordinates beside the steps, short. Computed steps are the bits of a number, as lists grow too long."""
        computed = sum(1 << step for step in self.computed_steps)
        marks = {
            f"f{self.forecast}": self.forecast,
            f"c{computed:x}": computed,
            f"g{self.guided_steps}": self.guided_steps,
        }
        return [*(mark for mark, given in marks.items() if given), *([self.solver] if self.solver else [])]

    @property
    def phrase(self) -> str:
        """In words: `20 steps`, or `skipping 10 of 20 steps`, and what else it does."""
        skipped, steps = self.skipped_steps, self.num_inference_steps
        steps_said = f"{steps} step{'' if steps == 1 else 's'}"
        words = [f"skipping {skipped} of {steps_said}" if skipped else steps_said]
        if self.forecast:
            words.append(f"computing one in {self.forecast}")
        if self.computed_steps:
            words.append(f"computing steps {', '.join(map(str, self.computed_steps))}")
        if self.guided_steps:
            words.append(f"guided in the first {self.guided_steps}")
        if self.solver:
            words.append(f"solved by {self.solver}")
        if self.model:
            words.append(f"by the model {self.model}")
        return ", ".join(words)


#: What names a level: all fields that it is made of, and nothing that follows from them.
COORDINATES = tuple(one.name for one in fields(Level) if one.init)


@cache
def _cost(level: Level) -> float:
    first = level.skipped_steps
    made = (step for step in range(first, level.num_inference_steps) if level.computes(step, first))
    return sum(1 if level.guides(step) else UNGUIDED_COST for step in made)


@cache
def exact_level(base_steps: int) -> Level:
    """K = 0 on the full schedule, of the pool's own model.

    Raises:
        ValueError: there is no schedule of so many steps.
    """
    return Level(0, base_steps)


def render_level(level: Level) -> dict[str, Any]:
    """As in JSON documents; coordinates without effect are left out."""
    steps: dict[str, Any] = {"skippedSteps": level.skipped_steps, "numInferenceSteps": level.num_inference_steps}
    others = {
        "forecast": level.forecast,
        "computedSteps": list(level.computed_steps),
        "guidedSteps": level.guided_steps,
        "solver": level.solver,
        "model": level.model,
    }
    return steps | {name: value for name, value in others.items() if value}


def parse_level(item: Mapping[str, Any]) -> Level:
    """Read what `render_level` wrote.

    Raises:
        KeyError, TypeError, ValueError: it is no level.
    """
    return Level(
        int(item["skippedSteps"]),
        int(item["numInferenceSteps"]),
        int(item.get("forecast", 0)),
        int(item.get("guidedSteps", 0)),
        str(item.get("solver", "")),
        tuple(int(step) for step in item.get("computedSteps", ())),
        str(item.get("model", "")),
    )


@dataclass(frozen=True, slots=True)
class Ladder:
    """The levels a pool may serve, exact first, then by falling cost. Unique, and the exact one is among them.

    Those of other models come last, model by model. Each model's longest plain schedule is its full one.
    """

    base_steps: int
    levels: tuple[Level, ...]

    @property
    def exact(self) -> Level:
        """What all losses are against."""
        return exact_level(self.base_steps)

    @property
    def models(self) -> tuple[str, ...]:
        """The pool's other models that have levels, by name."""
        return tuple(dict.fromkeys(level.model for level in self.levels if level.model))

    def full_schedule(self, model: str) -> Level:
        """The level of `model` that runs all of its steps.

        Raises:
            KeyError: the model has no levels.
        """
        if not model:
            return self.exact
        plain = [level for level in self.levels if level.model == model and not (level.needs_latent or level.marks)]
        if not plain:
            raise KeyError(model)
        return max(plain, key=lambda level: level.num_inference_steps)

    @property
    def skips(self) -> tuple[int, ...]:
        """Steps of the full schedule whose latents some level can resume from, ascending."""
        return tuple(sorted({lv.skipped_steps for lv in self.levels if lv.needs_latent and self._is_full(lv)}))

    def _is_full(self, level: Level) -> bool:
        return level.num_inference_steps == self.base_steps


def build_ladder(base_steps: int, levels: Iterable[Level], models: Mapping[str, int] = NO_MODELS) -> Ladder:
    """Check and order the levels of a pool. `models`: the full schedules of its other models, by name.

    Raises:
        ValueError: an exact level is missing, or a level is listed twice; a level runs longer than its model's full
            schedule, or names a model that the pool does not have.
    """
    given = tuple(levels)
    full = {Level(0, base_steps), *(Level(0, steps, model=model) for model, steps in models.items())}
    for exact in sorted(full - {*given}, key=lambda level: level.model):
        of = f", model: {exact.model}" if exact.model else ""
        steps = exact.num_inference_steps
        raise ValueError(f"levels must contain the exact one: {{skippedSteps: 0, numInferenceSteps: {steps}{of}}}")
    repeated = sorted({lv for lv in given if given.count(lv) > 1})
    if repeated:
        raise ValueError(f"levels lists {repeated[0].label(base_steps)!r} more than once")
    for level in given:
        _check_of_model(level, base_steps, models)
    return Ladder(base_steps, tuple(sorted(given, key=lambda lv: (lv.model, -lv.cost, lv))))


def _check_of_model(level: Level, base_steps: int, models: Mapping[str, int]) -> None:
    label = level.label(base_steps)
    if level.model:
        if level.model not in models:
            raise ValueError(f"level {label!r} names no model of the pool; there is {', '.join(models) or 'no other'}")
        if level.needs_latent:
            raise ValueError(f"level {label!r} skips steps: latents are stored of the pool's own model only")
    full = models[level.model] if level.model else base_steps
    if level.num_inference_steps > full:
        raise ValueError(f"level {label!r} runs longer than the model's numInferenceSteps = {full}")
    if level.needs_latent and level.num_inference_steps != full:
        raise ValueError(
            f"level {label!r} skips steps of a short schedule: cached latents belong to the "
            f"full schedule of {full} steps; leave out skippedSteps or numInferenceSteps"
        )
