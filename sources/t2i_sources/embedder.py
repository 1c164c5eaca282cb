"""Prompt embeddings by onnxruntime, without torch, from a folder with tokenizer.json and model.onnx.

Two kinds of folders work. In the first, model.onnx gives one vector a prompt. The second is a sentence encoder with an
ONNX export in the layout of sentence-transformers. Its `onnx/model.onnx` gives a vector a token. In
`1_Pooling/config.json` stands how they become one (default: the mean). `config_sentence_transformers.json` may name a
prefix for every prompt. The inputs are input_ids, attention_mask and perhaps token_type_ids, int64 [B, L].

A prompt that the tokenizer does not read whole (`t2i_sources.prompt_reading`) is similar to no other prompt. Its vector
comes from its hash, and it is compared only with others of this kind.
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
TRIED = "a prompt"  # an embedder is tried with this prompt when it is loaded
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
    """Raised when a folder holds no usable embedder; the message says what is missing."""


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """A unit vector [D] and the digest of the embedder that made it.

    `unread` is the reason if the tokenizer did not read the whole prompt.
    """

    vector: Vector
    embedder: str
    unread: Unread | None = None

    @property
    def kind(self) -> str:
        """Two embeddings of the same kind can be compared."""
        return self.embedder if self.unread is None else f"{self.embedder}.identical"


class Embedder:
    """Any thread may use it, but only one at a time.

    Raises:
        EmbedderError: a file is missing or cannot be used.
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
        """Embed a prompt in the calling thread.

        Raises:
            ValueError: the model's output is not one finite vector.
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
    """The embedder of an address (`t2i_sources`), which may be downloaded first, or of a plain folder.

    Raises:
        EmbedderError: it does not exist, cannot be downloaded now, or cannot be used.
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
    """A pseudo-random unit vector [D]; only equal prompts get the same one."""
    digest = hashlib.blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    drawn = np.random.default_rng(int.from_bytes(digest)).standard_normal(dimension).astype(np.float32)
    unit: Vector = drawn / np.linalg.norm(drawn)
    return unit


def _open_reader(path: Path, settings: Path) -> PromptReader:
    """A tokenizer with the length limit of the sentence encoder's settings."""
    limit = _read(settings).get("max_seq_length")
    try:
        return PromptReader(path, limit if isinstance(limit, int) and limit > 0 else None)
    except ValueError as error:
        raise EmbedderError(str(error)) from error


def _default_prefix(settings: Path) -> str:
    """The prefix of every text that the encoder was trained with, such as `query: `; mostly empty."""
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
    """Whether the first token's vector stands for the prompt, not the mean of all."""
    modes = {name for name, on in _read(settings).items() if name.startswith("pooling_mode_") and on is True}
    if not modes <= {"pooling_mode_mean_tokens", "pooling_mode_cls_token"} or len(modes) > 1:
        raise EmbedderError(f"1_Pooling/config.json asks for {', '.join(sorted(modes))}: only mean or cls is known")
    return modes == {"pooling_mode_cls_token"}


def _read(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty if the file does not exist."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise EmbedderError(f"{path.name} is not valid JSON: {error}") from error
    return found if isinstance(found, dict) else {}


def _digest(*files: Path) -> str:
    """Hash the files; 32 hex digits. It names the embedder, because vectors of different ones cannot be compared."""
    total = hashlib.blake2b(digest_size=16)
    for path in files:
        total.update(f"\x1f{path.name}\x1f".encode())
        if not path.is_file():
            continue
        with path.open("rb") as file:
            while chunk := file.read(1 << 22):
                total.update(chunk)
    return total.hexdigest()
