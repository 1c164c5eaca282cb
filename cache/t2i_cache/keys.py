"""Keys: a latent is valid only for the same model, noise schedule, size, guidance and dtype, and for its own scope.

Everything that changes the meaning of a latent is in `ModelKey`; a different value means a different fingerprint, so
a foreign latent is a miss, never a wrong start. Gateway and worker both call `model_fingerprint`: if the two ever
differed, every lookup would miss in silence.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from t2i_policy.image_size import ImageSize

_COMPONENT = re.compile(r"[A-Za-z0-9_-]{1,128}")


@dataclass(frozen=True, slots=True)
class ModelKey:
    """What a latent depends on besides its prompt. `guidance_milli` is the guidance scale times 1000, rounded.

    The negative prompt steers every step, so it is part of the key and not of the similarity. `embedder` is the digest
    of what similarity is measured by: vectors of another one mean nothing to it. `drawing` is the digest of what the
    request says about drawing. Version 3 kept states at some steps; version 4 keeps final latents.
    """

    model_digest: str
    noise_scheduler: str
    num_inference_steps: int
    width: int
    height: int
    guidance_milli: int
    dtype: str
    negative_prompt: str = ""
    embedder: str = ""
    drawing: str = ""

    @property
    def fingerprint(self) -> str:
        """32 hex digits, equal for equal keys on every machine."""
        values = (
            *(self.model_digest, self.noise_scheduler, self.num_inference_steps, self.width, self.height),
            *(self.guidance_milli, self.dtype, self.negative_prompt),
        )
        text = "\x1f".join(map(str, values))
        kind = f"v4\x1f{self.embedder}" + (f"\x1f{self.drawing}" if self.drawing else "")
        return hashlib.sha256(f"t2i-model-key-{kind}\x1f{text}".encode()).hexdigest()[:32]


class DescribedModel(Protocol):
    """What a worker says of its model, in its own facts as on the wire."""

    @property
    def model_digest(self) -> str: ...
    @property
    def noise_scheduler(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def adapters(self) -> "Iterable[DescribedAdapter]": ...


class DescribedAdapter(Protocol):
    """`digest` is that of the adapter's file."""

    @property
    def name(self) -> str: ...
    @property
    def digest(self) -> str: ...


class GuidedRequest(Protocol):
    """What a request says, and its job, that steers every step."""

    @property
    def guidance_scale(self) -> float: ...
    @property
    def negative_prompt(self) -> str: ...
    @property
    def drawing(self) -> "Digested": ...


class Digested(Protocol):
    def digest(self, adapter_files: Mapping[str, str], /) -> str: ...


def model_fingerprint(
    model: DescribedModel, request: GuidedRequest, size: ImageSize, *, num_inference_steps: int, embedder: str
) -> str:
    """The fingerprint of everything but the prompt that a latent of this request depends on."""
    return ModelKey(
        model_digest=model.model_digest,
        noise_scheduler=model.noise_scheduler,
        num_inference_steps=num_inference_steps,
        width=size.width,
        height=size.height,
        guidance_milli=round(request.guidance_scale * 1000),
        dtype=model.dtype,
        negative_prompt=request.negative_prompt,
        embedder=embedder,
        drawing=request.drawing.digest({adapter.name: adapter.digest for adapter in model.adapters}),
    ).fingerprint


class EntryName(NamedTuple):
    """One earlier prompt's run, whose latents have steps."""

    scope: str
    model: str
    entry_id: str


@dataclass(frozen=True, slots=True, order=True)
class LatentKey:
    """One stored latent of one earlier run: its state after `step` steps. The last step of the full schedule names the
    final latent of any run, short ones too.

    Raises:
        ValueError: a component is not 1-128 characters of A-Z a-z 0-9 _ -; ids come over the wire and become paths.
    """

    scope: str
    model: str
    entry_id: str
    step: int

    def __post_init__(self) -> None:
        for name in ("scope", "model", "entry_id"):
            if not _COMPONENT.fullmatch(getattr(self, name)):
                raise ValueError(f"{name} must be 1 to 128 characters of A-Z a-z 0-9 _ and -")
        if not 0 <= self.step <= 1_000_000:
            raise ValueError(f"step must be from 0 to 1000000, got {self.step}")

    @property
    def entry(self) -> EntryName:
        return EntryName(self.scope, self.model, self.entry_id)

    @property
    def text(self) -> str:
        """`scope:model:entry:step`, which `parse_key` reads back."""
        return f"{self.scope}:{self.model}:{self.entry_id}:{self.step}"


def parse_key(text: str) -> LatentKey:
    """The key that `LatentKey.text` wrote.

    Raises:
        ValueError: it did not.
    """
    scope, model, entry_id, step = text.split(":")
    return LatentKey(scope, model, entry_id, int(step))
