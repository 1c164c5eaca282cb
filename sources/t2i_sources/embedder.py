"""Prompt embeddings: a folder with tokenizer.json and model.onnx, run by onnxruntime; no torch.

The folder is our own kind, whose model gives one vector a prompt, or a sentence encoder with an ONNX export as
sentence-transformers lays it out: `onnx/model.onnx` gives a vector a token, and `1_Pooling/config.json` says how they
become one (mean, if it is not there); `config_sentence_transformers.json` may name a text that stands before every
prompt. Inputs are input_ids, attention_mask and perhaps token_type_ids, int64 [B,L].

A prompt that the tokenizer does not read whole (`t2i_sources.prompt_reading`) is like no other prompt. Its vector is
made of its hash, and it lies apart from the others.
"""

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors
from tokenizers import Encoding

from t2i_sources import EMBEDDER, SourceMissing, find_folder
from t2i_sources.prompt_reading import PromptReader, Unread

log = logging.getLogger(__name__)
Vector = npt.NDArray[np.float32]
SETTINGS_FILES = ("1_Pooling/config.json", "sentence_bert_config.json")
PREFIX_FILE = "config_sentence_transformers.json"
MODEL_FILES = ("model.onnx", "onnx/model.onnx")
TRIED = "a prompt"  # an embedder that cannot take this is of no use
_INPUTS = {"input_ids", "attention_mask", "token_type_ids"}
_POOLED = "sentence_embedding"

ONNX_ERRORS = (  # onnxruntime's own exceptions have no common base but Exception
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)


class EmbedderError(Exception):
    """The folder holds no usable embedder; the message says what is missing."""


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """A prompt as a unit vector [D], and the digest of who made it. `unread`: why it does not say all of the prompt."""

    vector: Vector
    embedder: str
    unread: Unread | None = None

    @property
    def kind(self) -> str:
        """Equal where two embeddings can be compared. Those of prompts that were not read whole are a kind apart."""
        return self.embedder if self.unread is None else f"{self.embedder}.identical"


class Embedder:
    """Any thread, one at a time.

    Raises:
        EmbedderError: something is missing or cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        model = next((folder / name for name in MODEL_FILES if (folder / name).is_file()), None)
        tokenizer = folder / "tokenizer.json"
        if model is None or not tokenizer.is_file():
            raise EmbedderError(f"{folder.name}: an embedder is a folder with tokenizer.json and model.onnx")
        self._reader = _open_reader(tokenizer, folder / "sentence_bert_config.json")
        self._session = _open_session(model)
        self._inputs = [one.name for one in self._session.get_inputs()]
        if not set(self._inputs) <= _INPUTS:
            raise EmbedderError(f"{model.name} wants {', '.join(self._inputs)}; there are {', '.join(sorted(_INPUTS))}")
        outputs = [one.name for one in self._session.get_outputs()]
        self._output = _POOLED if _POOLED in outputs else outputs[0]
        self._takes_first = _takes_first(folder / "1_Pooling" / "config.json")
        self._prefix = _default_prefix(folder / PREFIX_FILE)
        settings = [folder / name for name in SETTINGS_FILES]
        settings += [folder / PREFIX_FILE] if self._prefix else []
        self.digest = _digest(*sorted(model.parent.glob(f"{model.name}*")), tokenizer, *settings)
        try:
            self.dimension = len(self._run(self._reader.read(self._prefix + TRIED).encoding))
        except (ValueError, *ONNX_ERRORS) as error:
            raise EmbedderError(f"{model.name} cannot embed a prompt: {error}") from error

    def embed_now(self, prompt: str) -> Embedding:
        """The prompt's unit vector [D].

        Raises:
            ValueError: the model gave something that is not one finite vector.
        """
        reading = self._reader.read(self._prefix + prompt)
        if reading.unread is not None:
            return Embedding(_hashed(prompt, self.dimension), self.digest, reading.unread)
        return Embedding(self._run(reading.encoding), self.digest)

    def _run(self, encoding: Encoding) -> Vector:
        given = _given(encoding)
        out = self._session.run([self._output], {name: given[name] for name in self._inputs})[0]
        vector = self._pooled(np.asarray(out, np.float32), given["attention_mask"])
        if not np.isfinite(vector).all() or not vector.any():
            raise ValueError("the embedding is not finite or all zeros")
        unit: Vector = vector / np.linalg.norm(vector)
        return unit

    def _pooled(self, out: Vector, mask: npt.NDArray[np.int64]) -> Vector:
        if out.ndim != 3:
            return out.reshape(-1)
        if self._takes_first:
            first: Vector = out[0, 0]
            return first
        weights = mask[0].astype(np.float32)
        mean: Vector = weights @ out[0] / max(1.0, float(weights.sum()))
        return mean


def load_embedder(source: str, models_dir: Path) -> Embedder:
    """The embedder of an address (`t2i_sources`), downloaded first if it is a hub's, or of a plain folder.

    Raises:
        EmbedderError: there is none, it cannot be had now, or it cannot be used.
    """
    address = source if "://" in source else Path(source).resolve().as_uri()
    try:
        return Embedder(find_folder(EMBEDDER, address, models_dir))
    except SourceMissing as error:
        raise EmbedderError(str(error)) from error


def _given(encoding: Encoding) -> dict[str, npt.NDArray[np.int64]]:
    return {
        "input_ids": np.array([encoding.ids], np.int64),
        "attention_mask": np.array([encoding.attention_mask], np.int64),
        "token_type_ids": np.array([encoding.type_ids], np.int64),
    }


def _hashed(prompt: str, dimension: int) -> Vector:
    """A unit vector [D] that equal prompts share and nothing else means."""
    digest = hashlib.blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    drawn = np.random.default_rng(int.from_bytes(digest)).standard_normal(dimension).astype(np.float32)
    unit: Vector = drawn / np.linalg.norm(drawn)
    return unit


def _open_reader(path: Path, settings: Path) -> PromptReader:
    """The sentence encoder's own length limit holds."""
    limit = _read(settings).get("max_seq_length")
    try:
        return PromptReader(path, limit if isinstance(limit, int) and limit > 0 else None)
    except ValueError as error:
        raise EmbedderError(str(error)) from error


def _default_prefix(settings: Path) -> str:
    """What the encoder was trained to see before every text, such as `query: `; empty for most."""
    found = _read(settings)
    prompts, name = found.get("prompts"), found.get("default_prompt_name")
    prefix = prompts.get(name, "") if isinstance(prompts, dict) and name is not None else ""
    if not isinstance(prefix, str):
        raise EmbedderError(f"{settings.name}: the default prompt is not a text")
    return prefix


def _open_session(model: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except ONNX_ERRORS as error:
        raise EmbedderError(f"{model.parent.name}/{model.name} cannot be loaded: {error}") from error


def _takes_first(settings: Path) -> bool:
    """Whether the first token's vector stands for the prompt; else their mean does."""
    modes = {name for name, on in _read(settings).items() if name.startswith("pooling_mode_") and on is True}
    if not modes <= {"pooling_mode_mean_tokens", "pooling_mode_cls_token"} or len(modes) > 1:
        raise EmbedderError(f"1_Pooling/config.json asks for {', '.join(sorted(modes))}: only mean or cls is known")
    return modes == {"pooling_mode_cls_token"}


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; empty if there is no such file."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise EmbedderError(f"{path.name} is not valid JSON: {error}") from error
    return found if isinstance(found, dict) else {}


def _digest(*files: Path) -> str:
    """32 hex digits: vectors of different embedders cannot be compared."""
    total = hashlib.blake2b(digest_size=16)
    for path in files:
        total.update(f"\x1f{path.name}\x1f".encode())
        if not path.is_file():
            continue
        with path.open("rb") as file:
            while chunk := file.read(1 << 22):
                total.update(chunk)
    return total.hexdigest()
