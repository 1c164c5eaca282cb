"""What an engine takes and what it gives: jobs, events, load, counters. Without torch and without the wire format."""

import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from math import inf
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from t2i_cache.stores import BoundedStore, StoreHealth
from t2i_policy.image_size import ImageSize, SizeCost, step_cost_of
from t2i_policy.level import Level
from t2i_policy.readiness import Readiness
from t2i_runtime.drawing import PLAIN, Drawing, KnownParts
from t2i_runtime.input_images import KnownComponents
from t2i_worker.input_images import NO_PICTURES, DecodedImages

ImageFormat = Literal["png", "jpeg", "webp"]
EngineKind = Literal["diffusion", "simulated"]
ComponentKind = Literal["ControlNet", "IPAdapter"]


@dataclass(frozen=True, slots=True)
class Source:
    """The stored run that the job resumes from: its final latent is noised anew to the job's K, with the job's noise.

    `embedder` is the digest of the gateway's embedder and part of the key. `same_image`: the run was the exact one of
    the job's own prompt and seed, so its final latent is the image.
    """

    scope: str
    entry_id: str
    embedder: str = ""
    same_image: bool = False


@dataclass(frozen=True, slots=True)
class Sink:
    """The cache entry that the job's final latent goes to, with the prompt's `embedding`."""

    scope: str
    entry_id: str
    embedding: npt.NDArray[np.float32]
    embedder: str = ""


@dataclass(frozen=True, slots=True)
class FileNotes:
    """What an image file says beside what the worker knows itself; `prompt`: also the prompts."""

    pool: str
    model: str
    prompt: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """One image to make. `deadline_s` is an instant of `time.monotonic`; None = no deadline.

    `size` is (width, height) in pixels, by default the pool's. `images` are those of `drawing`, decoded. Without
    `file_notes` the file holds pixels alone. `holds_latent`: what goes to `sink` waits for `Engine.keep_latent`.
    `background`: it runs only while no other job is there.
    """

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
    size: ImageSize | None = None
    drawing: Drawing = PLAIN
    images: DecodedImages = NO_PICTURES
    file_notes: FileNotes | None = None
    holds_latent: bool = False
    background: bool = False

    @property
    def seconds_left(self) -> float | None:
        """Of its budget; None if it has none."""
        return None if self.deadline_s is None else max(0.0, self.deadline_s - time.monotonic())


@dataclass(frozen=True, slots=True)
class PromptCut:
    """A text encoder reads only the beginning of the prompt, or of the negative prompt.

    Token counts leave out the special tokens that the encoder adds.
    """

    encoder: str
    kept_tokens: int
    total_tokens: int
    kept_characters: int
    negative: bool = False


@dataclass(frozen=True, slots=True)
class Joined:
    """The job entered the batch. `served` is the level that really runs; `reason`, a FetchReason, says why.

    `num_steps` will run.
    """

    served: Level
    reason: str
    batch_size: int
    prompt_cuts: tuple[PromptCut, ...] = ()
    num_steps: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """`step` steps of the schedule are done, skipped ones included."""

    step: int
    num_inference_steps: int


@dataclass(frozen=True, slots=True)
class PreviewImage:
    """A small encoded image of what the latent after `step` is heading for."""

    step: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Image:
    data: bytes
    image_format: ImageFormat
    width: int
    height: int


class StoredLatent(NamedTuple):
    step: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Finished:
    served: Level
    wait_ms: float
    denoise_ms: float
    encode_ms: float
    fetch_ms: float
    stored: tuple[StoredLatent, ...] = ()
    held_id: str = ""


Event = Joined | Progress | PreviewImage | Image | Finished


@dataclass(frozen=True, slots=True)
class Load:
    """`step_s[b - 1]` is the time of one step at batch size b; `fixed_s` is the time of a request beside its steps.

    Both are of the default size; `steps_left` counts steps of that size, and `places` requests of it.
    `longest_step_s` is what a step may take for all in the batch to end by their deadlines.
    `step_age_s` is how long the present step has run, `encode_age_s` how long the oldest encode or decode has run.
    The others count steps as in `Tally`. `background` jobs, running or waiting, are in none of the other figures.
    `model` is the one that it holds, by its name in the pool.
    """

    ready: bool
    draining: bool
    running: int
    waiting: int
    batch_cap: int
    queue_cap: int
    step_s: tuple[float, ...]
    fixed_s: float
    steps_left: int
    steps_took_s: float
    steps_usual_s: float
    step_age_s: float
    encode_age_s: float
    places: float
    longest_step_s: float = inf
    background: int = 0
    model: str = ""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The model of an engine. `latent_bytes` is one stored latent without its header. `sizes` are those measured beside
    the default one. `model` is its name in the pool; empty: the pool's own.
    """

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
    sizes: tuple[SizeCost, ...] = ()
    image_inputs: tuple[str, ...] = ()  # fields of `InputImages` that it takes
    adapters: "tuple[AdapterFacts, ...]" = ()
    components: "tuple[ComponentFacts, ...]" = ()
    model: str = ""

    @property
    def known_parts(self) -> KnownParts:
        """What requests may name."""
        controls, ip_adapters = (
            {one.name: one.scale for one in self.components if one.kind == kind} for kind in ("ControlNet", "IPAdapter")
        )
        adapters = {adapter.name: adapter.scale for adapter in self.adapters}
        return KnownParts(adapters, KnownComponents(controls, ip_adapters))

    @property
    def size(self) -> ImageSize:
        """The default one."""
        return ImageSize(self.width, self.height)

    def step_cost(self, size: ImageSize | None) -> float:
        """What a step of this size costs, in steps of the default size."""
        return 1.0 if size is None else step_cost_of(size, self.size, self.sizes)

    def draws(self, size: ImageSize) -> bool:
        """Whether it lies between the sizes that were measured. The gateway knows which of those the pool serves."""
        known = [self.size, *(one.size for one in self.sizes)]
        between = all(
            min(sides) <= side <= max(sides) for side, sides in zip(size, zip(*known, strict=True), strict=True)
        )
        return between and size.pixels <= max(one.pixels for one in known)


@dataclass(frozen=True, slots=True)
class ComponentFacts:
    """A component that is loaded. `digest` is of its files, `scale` what it has where a request says nothing."""

    name: str
    digest: str
    scale: float
    kind: ComponentKind = "ControlNet"


@dataclass(frozen=True, slots=True)
class AdapterFacts:
    """A LoRA adapter that is loaded. `digest` is of its file, `scale` what it has where a request says nothing."""

    name: str
    digest: str
    scale: float


@dataclass(slots=True)
class Tally:
    """What an engine counted since its start. The engine writes it; the metrics read it."""

    steps_run: int = 0
    steps_skipped: int = 0
    steps_forecast: int = 0
    steps_took_s: float = 0.0  # time of all steps; a batch counts once
    steps_usual_s: float = 0.0  # time of the same steps by the averages at their beginning
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
    reloads: dict[str, int] = field(default_factory=dict)  # by outcome, as the seconds without service that they took
    reloads_took_s: dict[str, float] = field(default_factory=dict)


class Engine(Protocol):
    tally: Tally

    @property
    def facts(self) -> ModelFacts: ...

    @property
    def own_latents(self) -> BoundedStore | None:
        """None: no store, or one that others write to as well."""

    def load(self) -> Load: ...

    def readiness(self) -> Readiness:
        """Whether it takes requests now, and if not, why."""

    async def changed(self) -> None:
        """Return after the next change of `load()` or `readiness()`."""

    def generate(self, job: Job) -> AsyncGenerator[Event, None]:
        """Yield Joined, (Progress | PreviewImage)*, Image, Finished. Closing it frees the job's place within one step.

        Raises:
            WorkerError: the job ends early; the classes in `errors` say why.
        """

    async def keep_latent(self, held_id: str) -> tuple[StoredLatent, ...]:
        """Store a latent that was set aside, if it still is there; returns what the store holds of it."""

    async def drain(self) -> None:
        """Take no more jobs; return when the accepted ones have ended."""

    async def close(self) -> None:
        """Stop all threads. Jobs that still run fail with WorkerDraining."""
