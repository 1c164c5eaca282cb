"""One request inside the step loop, and the events that the loop sends about it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from t2i_worker.errors import WorkerError
from t2i_worker.pipelines import Conditions, NoiseSchedule


@dataclass(slots=True, eq=False)
class RunningRequest:
    """Only the denoise thread writes it; any thread may set `cancelled`, and nobody unsets it.

    `latent` [1, ...] enters step `step` of `num_steps`. Latents that enter a step of `keep` are put into `kept`.
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
        return self.num_steps - self.step

    def model_input(self) -> Tensor:
        """The latent as the model takes it at this step, [1, ...]."""
        return self.schedule.model_input(self.latent, self.step)

    def timestep(self) -> Tensor:
        """A scalar on the CPU."""
        return self.schedule.timesteps[self.step]

    def advance(self, prediction: Tensor) -> Tensor | None:
        """Apply the guided prediction [1, ...] and move on by one step; returns the latent to preview if one is due."""
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
    """`step` steps are done, skipped ones included. `preview` [1, ...] is set when one is due."""

    step: int
    preview: Tensor | None


@dataclass(frozen=True, slots=True)
class Denoised:
    """All steps are done after `denoise_s` seconds in the loop."""

    denoise_s: float


@dataclass(frozen=True, slots=True)
class StepFailed:
    error: WorkerError


StepEvent = StepEntered | StepDone | Denoised | StepFailed
Deliver = Callable[[StepEvent], None]
Deliveries = Sequence[tuple[RunningRequest, StepEvent]]
