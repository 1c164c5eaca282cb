"""The levels of a pool as its owner writes them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from t2i_api.model import ModelName, Steps
from t2i_api.part import Part
from t2i_policy.frontier import paper_levels
from t2i_policy.level import COORDINATES, Level

# strict: as for the API server, "5", true and 5.0 are no whole numbers
SkippedSteps = Annotated[int, Field(ge=0, le=999, strict=True)]


class LevelPart(Part):
    """One way to spend less on an image: skip steps by starting from a similar prompt's latent, or run a shorter
    schedule, not both; forecast some of the steps that are left, guide in the first of them only, solve them better."""

    skipped_steps: SkippedSteps = 0
    """Steps of the full schedule that a cached latent of a similar prompt stands for; 0 needs no cache."""
    num_inference_steps: Steps | None = None
    """Steps of the schedule; left out: the model's full schedule."""
    forecast: Annotated[int, Field(ge=2, le=8, strict=True)] | None = None
    """After its first two steps a run computes one step in so many, and forecasts the others from its own outputs."""
    guided_steps: Annotated[int, Field(ge=1, le=1000, strict=True)] | None = None
    """Guidance up to this step of the schedule only: later steps run at about half the cost. For models that guide by
    rows without the prompt; distilled ones do not."""
    computed_steps: Annotated[tuple[SkippedSteps, ...], Field(min_length=2, max_length=64)] | None = None
    """Instead of forecast: the steps that a run computes, ascending, its first two among them; t2ictl profile --search
    finds good ones."""
    solver: Literal["dpm++-2m", "unipc"] | None = None
    """A noise scheduler of second order in place of the model's own."""
    model: ModelName | None = None
    """Another model of the pool, by its name in workerGroups; its numInferenceSteps are written down then. Left out:
    the pool's own. Each model's full schedule is a level without being listed."""

    def level(self, base_steps: int) -> Level:
        """The level that is meant, given the model's full schedule."""
        return level_named(self.spelled_out(base_steps))

    def steps(self, base_steps: int) -> int:
        """Steps of its schedule, given the model's full one."""
        return self.num_inference_steps or base_steps

    def spelled_out(self, base_steps: int) -> "LevelPart":
        """The same level with its schedule written down; two that mean the same are equal then."""
        told = {name: getattr(self, name) for name in LevelPart.model_fields}
        return LevelPart(**told | {"num_inference_steps": self.steps(base_steps)})

    @classmethod
    def of(cls, level: Level) -> "LevelPart":
        """As a document writes it, its schedule spelled out."""
        return cls(**coordinates(level))


def coordinates(level: Level) -> dict[str, Any]:
    """The fields that name a level in a document; None: it does not have this one."""
    told = {name: getattr(level, name) or None for name in COORDINATES}
    return told | {"skipped_steps": level.skipped_steps}


def level_named(part: BaseModel) -> Level:
    """The level that these fields of a document name.

    Raises:
        ValueError: they name none.
    """
    told = {name: getattr(part, name) for name in COORDINATES}
    return Level(**{name: value for name, value in told.items() if value is not None})


def default_levels(base_steps: int) -> tuple[LevelPart, ...]:
    """The paper's levels: skips of 0, 10, 20, 30, 40 and 50 percent of the schedule."""
    return tuple(map(LevelPart.of, paper_levels(base_steps)))
