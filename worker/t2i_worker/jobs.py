"""What goes into an engine and what comes out: jobs, events, load. Knows neither torch nor the wire."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from t2i_cache.stores import BoundedStore, StoreHealth
from t2i_policy.level import Level
from t2i_policy.readiness import Readiness

ImageFormat = Literal["png", "jpeg", "webp"]
EngineKind = Literal["diffusion", "simulated"]


@dataclass(frozen=True, slots=True)
class Source:
    """Where to start when steps are skipped: an earlier prompt's entry, and the steps believed to be stored for it.

    `embedder`, of sinks too, is the digest of what the gateway finds entries by; it is part of their keys. `seed` is of
    the run that the entry is of; None = not known, and its latents are then taken as they are.
    """

    scope: str
    entry_id: str
    steps: tuple[int, ...]
    embedder: str = ""
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Sink:
    """Where to keep latents: the state entering each of `steps`, beside the prompt's `embedding`."""

    scope: str
    entry_id: str
    steps: tuple[int, ...]
    embedding: npt.NDArray[np.float32]
    embedder: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """One image to make. `deadline_s` in seconds of `time.monotonic`, None = none."""

    request_id: str
    prompt: str
    negative_prompt: str
    seed: int
    guidance_scale: float
    level: Level
    image_format: ImageFormat
    deadline_s: float | None = None
    source: Source | None = None
    sink: Sink | None = None
    preview_every_steps: int = 0


@dataclass(frozen=True, slots=True)
class PromptCut:
    """A text encoder reads only the first tokens of the prompt, or of the negative one: up to this character.

    Tokens are counted without the special ones that the encoder adds.
    """

    encoder: str
    kept_tokens: int
    total_tokens: int
    kept_characters: int
    negative: bool = False


@dataclass(frozen=True, slots=True)
class Joined:
    """The job entered the batch. `served.skipped_steps` is what it really skips, `reason` why (FetchReason).

    At most `report_every_steps` steps pass between two of its `Progress` events.
    """

    served: Level
    reason: str
    batch_size: int
    report_every_steps: int = 1
    prompt_cuts: tuple[PromptCut, ...] = ()


@dataclass(frozen=True, slots=True)
class Progress:
    """`step` steps of the schedule are done, skipped ones included."""

    step: int
    num_inference_steps: int


@dataclass(frozen=True, slots=True)
class PreviewImage:
    """A small encoded image of what the state after `step` is heading for."""

    step: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Image:
    """The encoded result and its size in pixels."""

    data: bytes
    image_format: ImageFormat
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The end. Times in ms; `stored` holds (step, bytes) of latents that were kept."""

    served: Level
    wait_ms: float
    denoise_ms: float
    encode_ms: float
    fetch_ms: float
    stored: tuple[tuple[int, int], ...] = ()


Event = Joined | Progress | PreviewImage | Image | Finished


@dataclass(frozen=True, slots=True)
class Load:
    """State of an engine; `step_s[b - 1]` seconds of one step at batch size b, `fixed_s` the rest of one request."""

    ready: bool
    draining: bool
    running: int
    waiting: int
    batch_cap: int
    queue_cap: int
    step_s: tuple[float, ...]
    fixed_s: float
    steps_left: int


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What an engine serves. `latent_bytes`: one stored latent without its header."""

    model_digest: str
    noise_scheduler: str
    dtype: str
    device: str
    num_inference_steps: int
    guidance_scale: float
    width: int
    height: int
    latent_bytes: int
    engine: EngineKind


@dataclass(slots=True)
class Tally:
    """What an engine counted since its start; read by the metrics, written by the engine only."""

    steps_run: int = 0
    steps_skipped: int = 0
    batch_sizes: dict[int, int] = field(default_factory=dict)
    out_of_memory: int = 0
    cancelled: int = 0
    latent_starts: dict[str, int] = field(default_factory=dict)
    store: StoreHealth = field(default_factory=StoreHealth)  # written by the latent store
    failures: dict[str, int] = field(default_factory=dict)
    failures_in_a_row: int = 0
    self_tests: dict[str, int] = field(default_factory=dict)
    decode_fallbacks: int = 0
    previews_left_out: int = 0
    latents_not_kept: dict[str, int] = field(default_factory=dict)


class Engine(Protocol):
    """Runs jobs. The one thing a worker process is built around."""

    facts: ModelFacts
    tally: Tally
    own_latents: BoundedStore | None  # None: latents lie in a store that others write to as well, or nowhere

    def load(self) -> Load:
        """The state right now."""

    def readiness(self) -> Readiness:
        """Whether it takes requests right now, and why not."""

    async def changed(self) -> None:
        """Return after the next change of `load()` or `readiness()`."""

    def generate(self, job: Job) -> AsyncGenerator[Event, None]:
        """Joined, (Progress | PreviewImage)*, Image, Finished. Closing it frees the job's slot within one step.

        Raises:
            WorkerBusy, WorkerDraining, WorkerUnready, RequestInvalid, DeadlineExceeded, GenerationFailed: see `errors`.
        """

    async def drain(self) -> None:
        """Take no more jobs; return when those accepted have ended."""

    async def close(self) -> None:
        """Stop threads. Jobs still running fail with WorkerDraining."""
