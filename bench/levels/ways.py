"""Ways to spend less on an image of the embedded model, drawn in batches by its bare loop.

The same arithmetic as the engine's: a forecast extrapolates the last outputs of the denoiser, and an unguided step runs
the prompted rows alone.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from t2i_scenes.measuring import AskedCaption
from t2i_scenes.sampling import ScenesModel
from t2i_worker.pipelines.samplers import make_scheduler


@dataclass(frozen=True, slots=True)
class Way:
    """`computed` are the steps that run the denoiser, the others are forecast; `guided` = [first, end) of guidance.

    None: all of them. `skipped` steps are left out by starting from the final latent of a similar caption.
    """

    steps: int
    solver: str = ""
    computed: tuple[int, ...] | None = None
    order: int = 1
    guided: tuple[int, int] | None = None
    skipped: int = 0

    def runs(self, step: int) -> bool:
        return self.computed is None or step in self.computed

    def guides(self, step: int) -> bool:
        return self.guided is None or self.guided[0] <= step < self.guided[1]

    @property
    def run_steps(self) -> list[int]:
        return [step for step in range(self.skipped, self.steps) if self.runs(step)]

    @property
    def forwards(self) -> int:
        return len(self.run_steps)

    @property
    def rows(self) -> int:
        return sum(1 + self.guides(step) for step in self.run_steps)


class Known(NamedTuple):
    """An output of the denoiser, and the timestep that it is of."""

    timestep: float
    output: Tensor


@dataclass(slots=True)
class Outputs:
    """Of the prompted or of the other rows, the newest last."""

    order: int
    known: list[Known] = field(default_factory=list)

    def learn(self, timestep: float, output: Tensor) -> Tensor:
        self.known = [*self.known[-self.order :], Known(timestep, output)]
        return output

    def forecast(self, timestep: float) -> Tensor:
        """Lagrange's polynomial through the last outputs."""
        total = torch.zeros_like(self.known[-1].output)
        for one in self.known:
            others = [other.timestep for other in self.known if other is not one]
            total += one.output * float(np.prod([(timestep - at) / (one.timestep - at) for at in others]))
        return total


@torch.inference_mode()
def draw_final(model: ScenesModel, asked: Sequence[AskedCaption], way: Way, start: Tensor | None = None) -> Tensor:
    """Final latents [B,C,h,w]. `start` [B,C,h,w] enters the first step that is not skipped."""
    guidance, count = model.constants.default_guidance_scale, len(asked)
    scheduler = copy.deepcopy(make_scheduler(way.solver, model.scheduler) if way.solver else model.scheduler)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1.0 / way.steps, way.steps))
    scheduler.set_begin_index(way.skipped)
    latents = model.noise([one.seed for one in asked]) if start is None else start
    states = model.encode([*(one.text for one in asked), *[""] * count])
    prompted, unprompted = Outputs(way.order), Outputs(way.order)
    for step in range(way.skipped, way.steps):
        timestep = scheduler.timesteps[step]
        at, rows = float(timestep), count * (1 + way.guides(step))
        if way.runs(step):
            output = model.unet(
                torch.cat([latents] * (rows // count)),
                torch.full((rows,), at),
                states.hidden[:rows],
                class_labels=states.cls[:rows],
            ).sample
            velocity = prompted.learn(at, output[:count])
            without = unprompted.learn(at, output[count:]) if way.guides(step) else velocity
        else:
            velocity = prompted.forecast(at)
            without = unprompted.forecast(at) if way.guides(step) else velocity
        latents = scheduler.step(without + guidance * (velocity - without), timestep, latents, return_dict=False)[0]
    return latents


def every(stride: int, steps: int, first: int = 0) -> tuple[int, ...]:
    """The first two steps that run, then each `stride`-th."""
    return tuple(sorted({first, *range(first + 1, steps, stride)}))


STEPS = 12
CHOSEN = (0, 1, 4, 8)  # by `t2ictl profile --search 4`'s moves, on other captions than a block's
EXACT = "exact"
PLAIN = {f"{steps} steps": Way(steps) for steps in (8, 6, 5, 4, 3)}
#: By what each is beside plain schedules.
WAYS: dict[str, dict[str, Way]] = {
    "plain": {EXACT: Way(STEPS), **PLAIN},
    "second order": {f"unipc, {steps} steps": Way(steps, "unipc") for steps in (6, 5, 4)},
    "forecast": {f"forecast {stride}": Way(STEPS, computed=every(stride, STEPS)) for stride in (2, 3)},
    "chosen steps": {
        "forecast 4": Way(STEPS, computed=every(4, STEPS)),
        "steps 0, 1, 4, 8": Way(STEPS, computed=CHOSEN),
    },
    "guidance tail": {"guided in 6 of 12": Way(STEPS, guided=(0, 6))},
    "skip": {"skip 6": Way(STEPS, skipped=6), "skip 9": Way(STEPS, skipped=9)},
    "composition": {
        "skip 3, forecast 2": Way(STEPS, skipped=3, computed=every(2, STEPS, 3)),
        "forecast 2, guided in 6": Way(STEPS, computed=every(2, STEPS), guided=(0, 6)),
        "forecast 2, guided in 4": Way(STEPS, computed=every(2, STEPS), guided=(0, 4)),
        "steps 0, 1, 4, 8, guided in 2": Way(STEPS, computed=CHOSEN, guided=(0, 2)),
        "unipc, 6 steps, guided in 4": Way(6, "unipc", guided=(0, 4)),
    },
}
ALL_WAYS = {name: way for ways in WAYS.values() for name, way in ways.items()}
