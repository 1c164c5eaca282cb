"""Prompt embeddings: a folder with tokenizer.json and model.onnx, run by onnxruntime; no torch.

The model takes input_ids and attention_mask, int64 [B,L], and gives unit vectors, float32 [B,D]. Repeated prompts come
from a small cache, each tenant from its own part: how fast an answer comes must not tell that another has asked the
same. Trouble means no neighbour, never a failed request.
"""

import asyncio
import logging
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors
from tokenizers import Tokenizer

log = logging.getLogger(__name__)
Vector = npt.NDArray[np.float32]
CACHED_PROMPTS = 4096
INLINE_CHARACTERS = 2048  # longer prompts are cut before the tokenizer sees them


_ONNX_ERRORS = (  # onnxruntime's own exceptions have no common base but Exception
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


class Embedder:
    """See the module. One event loop; the model runs in a thread of its own."""

    def __init__(self, folder: Path) -> None:
        if not (folder / "tokenizer.json").is_file() or not (folder / "model.onnx").is_file():
            raise EmbedderError(f"{folder.name}: an embedder is a folder with tokenizer.json and model.onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        try:
            self._session = onnxruntime.InferenceSession(
                str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
            )
        except _ONNX_ERRORS as error:
            raise EmbedderError(f"{folder.name}/model.onnx cannot be loaded: {error}") from error
        self._known: OrderedDict[tuple[str, str], Vector] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embed")
        self.failures = 0

    async def embed(self, prompt: str, tenant: str) -> Vector | None:
        """The prompt's unit vector [D], or None if the model fails on it."""
        asked = (tenant, prompt)
        known = self._known.get(asked)
        if known is not None:
            self._known.move_to_end(asked)
            return known
        try:
            vector = await asyncio.get_running_loop().run_in_executor(self._thread, self.embed_now, prompt)
        except (ValueError, *_ONNX_ERRORS) as error:
            log.warning("a prompt could not be embedded: %s", type(error).__name__)
            self.failures += 1
            return None
        self._known[asked] = vector
        if len(self._known) > CACHED_PROMPTS:
            self._known.popitem(last=False)
        return vector

    def embed_now(self, prompt: str) -> Vector:
        """As `embed`, in this thread.

        Raises:
            ValueError: the model gave something that is not one finite vector.
        """
        encoding = self._tokenizer.encode(prompt[:INLINE_CHARACTERS])
        ids = np.array([encoding.ids], np.int64)
        mask = np.array([encoding.attention_mask], np.int64)
        out = self._session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
        vector = np.asarray(out, np.float32).reshape(-1)
        if not np.isfinite(vector).all() or not vector.any():
            raise ValueError("the embedding is not finite or all zeros")
        return vector

    def close(self) -> None:
        """Let the thread go."""
        self._thread.shutdown(wait=False, cancel_futures=True)
