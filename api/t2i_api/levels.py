"""The levels of a pool as its owner writes them."""

from typing import Annotated, Literal

from pydantic import Field

from t2i_api.model import ModelName, Steps
from t2i_api.part import Part as _Part
from t2i_policy.frontier import paper_levels
from t2i_policy.level import Level

# strict: as for the API server, "5", true and 5.0 are no whole numbers
SkippedSteps = Annotated[int, Field(ge=0, le=999, strict=True)]


class LevelPart(_Part):
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
        return Level(
            self.skipped_steps,
            self.steps(base_steps),
            self.forecast or 0,
            self.guided_steps or 0,
            self.solver or "",
            self.computed_steps or (),
            self.model or "",
        )

    def steps(self, base_steps: int) -> int:
        """Steps of its schedule, given the model's full one."""
        return self.num_inference_steps or base_steps

    def spelled_out(self, base_steps: int) -> "LevelPart":
        """The same level with its schedule written down; two that mean the same are equal then."""
        return LevelPart(
            skipped_steps=self.skipped_steps,
            num_inference_steps=self.steps(base_steps),
            forecast=self.forecast,
            guided_steps=self.guided_steps,
            solver=self.solver,
            computed_steps=self.computed_steps,
            model=self.model,
        )

    @classmethod
    def of(cls, level: Level) -> "LevelPart":
        """As a document writes it, its schedule spelled out."""
        return cls(
            skipped_steps=level.skipped_steps,
            num_inference_steps=level.num_inference_steps,
            forecast=level.forecast or None,
            guided_steps=level.guided_steps or None,
            solver=level.solver or None,  # type: ignore[arg-type]
            computed_steps=level.computed_steps or None,
            model=level.model or None,
        )


def default_levels(base_steps: int) -> tuple[LevelPart, ...]:
    """The paper's levels: skips of 0, 10, 20, 30, 40 and 50 percent of the schedule."""
    return tuple(map(LevelPart.of, paper_levels(base_steps)))
