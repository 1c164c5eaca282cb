"""Recall@1 on real prompts: the index's answer against a search of all, for real questions among real-like rows.

Real prompts (a file; DiffusionDB's first 4,000 in our figures) through all-MiniLM-L6-v2, equal ones once. `HELD_OUT` of
them, drawn by a seed, are the questions; the others are stored. Rows up to the asked size are changes of stored ones:

    row = sqrt(1 - s^2) x + s d,  s uniform in made_up_embeddings.CHANGES

x a stored prompt, d the part of another stored prompt that is at a right angle to x, length 1; both drawn evenly. So
every row lies between two real prompts, most often near one. An answer is right if no row is nearer by more than
`EQUAL`: some prompts differ in letters that the encoder does not tell apart.
"""

from pathlib import Path
from typing import Any

import numpy as np

from bench.cache.made_up_embeddings import CHANGES, Vectors
from bench.kit.output import say
from bench.kit.prompts import embed_prompts, prompt_lines
from t2i_cache.index import PromptIndex

HELD_OUT = 1000
SEED = 11
EQUAL = 1e-6
NEAR = 0.8  # questions with a neighbour that levels may start from
PART = 5_000
Figures = dict[str, Any]


def measure_recall(path: Path, size: int) -> Figures:
    """Figures of an index of `size` rows, lists built. `path` holds prompts, one a line."""
    vectors = embed_prompts(prompt_lines(path)).vectors
    vectors = vectors[np.abs(vectors).max(axis=1) > 0]  # the others are in no index
    draw = np.random.default_rng(SEED)
    order = draw.permutation(len(vectors))
    questions, stored = vectors[order[:HELD_OUT]], vectors[order[HELD_OUT:]]
    rows = np.concatenate([stored, changes(stored, size - len(stored), draw)])
    say(f"real prompts: building lists over {len(rows)} rows")
    index = PromptIndex(rows.shape[1])
    index.extend([str(row) for row in range(len(rows))], rows)
    while index.wants_lists:
        index.adopt(index.snapshot().build())
    say("real prompts: asking")
    found = np.array([int(index.nearest(question, 1)[0].entry_id) for question in questions])
    best = np.max([(questions @ rows[at : at + PART].T).max(axis=1) for at in range(0, len(rows), PART)], axis=0)
    missed_by = best - np.sum(questions * rows[found], axis=1)
    right = missed_by <= EQUAL
    near = best >= NEAR
    return {
        "rows": len(rows),
        "real_rows": len(stored),
        "questions": len(questions),
        "recall": float(right.mean()),
        "near": int(near.sum()),
        "recall_near": float(right[near].mean()) if near.any() else None,
        "missed_by_p50": round(float(np.median(missed_by[~right])), 3) if not right.all() else 0.0,
        "similarity_p50": round(float(np.median(best)), 3),
    }


def changes(stored: Vectors, count: int, draw: np.random.Generator) -> Vectors:
    """`count` rows of length 1, by the formula above."""
    parts = [np.empty((0, stored.shape[1]), np.float32)]
    for at in range(0, count, PART):
        number = min(PART, count - at)
        base = draw.integers(len(stored), size=number)
        other = (base + draw.integers(1, len(stored), size=number)) % len(stored)
        x, y = stored[base], stored[other]
        aside = y - np.sum(x * y, axis=1, keepdims=True) * x
        aside /= np.maximum(np.linalg.norm(aside, axis=1, keepdims=True), 1e-6)
        sine = draw.uniform(*CHANGES, (number, 1)).astype(np.float32)
        parts.append((np.sqrt(1 - sine**2) * x + sine * aside).astype(np.float32))
    return np.concatenate(parts)
