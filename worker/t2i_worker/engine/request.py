"""One request inside the step loop: its latent, where it stands in its own schedule, and what it keeps on the way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from t2i_worker.errors import WorkerError
from t2i_worker.pipelines import Conditions, NoiseSchedule


@dataclass(slots=True, eq=False)
class Running:
    """Written by the denoise thread only, except `cancelled`, which anyone may set (it is never unset).

    `latent` [1, ...] enters step `step` of `num_steps`. `keep` names the steps whose incoming latents go to `kept`.
    """

    latent: Tensor
    step: int
    num_steps: int
    schedule: NoiseSchedule
    conditions: Conditions
    deliver: "Deliver"
    deadline_s: float | None = None
    keep: frozenset[int] = frozenset()
    preview_every_steps: int = 0
    kept: dict[int, Tensor] = field(default_factory=dict)
    joined_s: float | None = None
    cancelled: bool = False

    @property
    def steps_left(self) -> int:
        """Denoising steps still to run."""
        return self.num_steps - self.step

    def model_input(self) -> Tensor:
        """What the model sees at this step, [1, ...]."""
        return self.schedule.model_input(self.latent, self.step)

    def timestep(self) -> Tensor:
        """Scalar, on the CPU."""
        return self.schedule.timesteps[self.step]

    def advance(self, prediction: Tensor) -> Tensor | None:
        """Apply the guided prediction [1, ...] and move one step on; returns the state to preview, if one is due."""
        due = self.preview_every_steps and (self.step + 1) % self.preview_every_steps == 0 and self.steps_left > 1
        preview = self.schedule.clean_estimate(prediction, self.latent, self.step) if due else None
        self.latent = self.schedule.advance(prediction, self.latent, self.step)
        self.step += 1
        if self.step in self.keep:
            self.kept[self.step] = self.latent
        return preview


@dataclass(frozen=True, slots=True)
class StepEntered:
    """The request joined a batch of this size."""

    batch_size: int


@dataclass(frozen=True, slots=True)
class StepDone:
    """`step` steps are done; `preview` [1, ...] when one is due."""

    step: int
    preview: Tensor | None


@dataclass(frozen=True, slots=True)
class Denoised:
    """All steps are done after `denoise_s` seconds in the loop."""

    denoise_s: float


@dataclass(frozen=True, slots=True)
class StepFailed:
    """This request ended early."""

    error: WorkerError


StepEvent = StepEntered | StepDone | Denoised | StepFailed
Deliver = Callable[[StepEvent], None]
Deliveries = Sequence[tuple[Running, StepEvent]]
