"""Levels: the ways to spend fewer denoising steps on the warm model, and the ladder of those a pool may use.

A level has two knobs: `skipped_steps` (the paper's K: start from the cached latent of a similar prompt)
and `num_inference_steps` (a shorter schedule, which needs no neighbour). Its cost is the number of steps it runs; its
quality loss is never assumed, only read from a measured profile.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Level:
    """`skipped_steps` K of a schedule of `num_inference_steps` N; 0 <= K < N.

    Raises:
        ValueError: K or N out of range.
    """

    skipped_steps: int
    num_inference_steps: int

    def __post_init__(self) -> None:
        if self.num_inference_steps < 1:
            raise ValueError(f"numInferenceSteps must be at least 1, got {self.num_inference_steps}")
        if not 0 <= self.skipped_steps < self.num_inference_steps:
            raise ValueError(
                f"skippedSteps must be from 0 to numInferenceSteps - 1 = {self.num_inference_steps - 1}, "
                f"got {self.skipped_steps}"
            )

    @property
    def steps_run(self) -> int:
        """Denoising steps this level costs."""
        return self.num_inference_steps - self.skipped_steps

    @property
    def needs_latent(self) -> bool:
        """True if it starts from a cached latent."""
        return self.skipped_steps > 0

    def label(self, base_steps: int) -> str:
        """`"0"` exact, `"K"` a skip of the full schedule, `"K/N"` on a shorter one: for metrics, tables, summaries."""
        if self.num_inference_steps == base_steps:
            return str(self.skipped_steps)
        return f"{self.skipped_steps}/{self.num_inference_steps}"


def level_phrase(skipped_steps: int, num_inference_steps: int) -> str:
    """A level in words: `20 steps`, or `skipping 10 of 20 steps`."""
    return (
        f"skipping {skipped_steps} of {num_inference_steps} steps" if skipped_steps else f"{num_inference_steps} steps"
    )


@dataclass(frozen=True, slots=True)
class Ladder:
    """The levels a pool may serve, exact first, then by falling cost. Unique, and the exact one is among them."""

    base_steps: int
    levels: tuple[Level, ...]

    @property
    def exact(self) -> Level:
        """K = 0 on the full schedule."""
        return Level(0, self.base_steps)

    @property
    def skips(self) -> tuple[int, ...]:
        """Steps of the full schedule whose latents some level can resume from, ascending."""
        return tuple(sorted({lv.skipped_steps for lv in self.levels if lv.needs_latent and self._is_full(lv)}))

    def _is_full(self, level: Level) -> bool:
        return level.num_inference_steps == self.base_steps


def build_ladder(base_steps: int, levels: Iterable[Level]) -> Ladder:
    """Check and order the levels of a pool.

    Raises:
        ValueError: the exact level is missing, a level is listed twice, or one runs longer than `base_steps`.
    """
    given = tuple(levels)
    exact = Level(0, base_steps)
    if exact not in given:
        raise ValueError(f"levels must contain the exact one: {{skippedSteps: 0, numInferenceSteps: {base_steps}}}")
    repeated = sorted({lv for lv in given if given.count(lv) > 1})
    if repeated:
        raise ValueError(f"levels lists {repeated[0].label(base_steps)!r} more than once")
    for level in given:
        if level.num_inference_steps > base_steps:
            raise ValueError(
                f"level {level.label(base_steps)!r} runs longer than the model's numInferenceSteps = {base_steps}"
            )
        if level.needs_latent and level.num_inference_steps != base_steps:
            raise ValueError(
                f"level {level.label(base_steps)!r} skips steps of a short schedule: cached latents belong to the "
                f"full schedule of {base_steps} steps; leave out skippedSteps or numInferenceSteps"
            )
    return Ladder(base_steps, tuple(sorted(given, key=lambda lv: (-lv.steps_run, lv.skipped_steps))))
