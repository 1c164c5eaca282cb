"""The index at one size: lookup times, recall against comparing with every prompt, insert rate, turnover."""

import time
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bench.cache.made_up_embeddings import MadeUpEmbeddings, Vectors
from bench.kit.output import say
from t2i_cache.index import PromptIndex

REPEATING, NEW = 400, 200  # questions that change a stored prompt, and that are new ideas
LOOKUPS = 1500
BULK = 20_000
ROUNDS_PER_TURNOVER = 20
Figures = dict[str, Any]


def measure_index(size: int, turnovers: int) -> Figures:
    """Figures of an index of `size` prompts, fresh and after its content changed `turnovers` times."""
    prompts = MadeUpEmbeddings(seed=size)
    say(f"{size}: drawing prompts")
    held = _draw(prompts, size)
    index, began_s = PromptIndex(held.shape[1]), time.perf_counter()
    for start in range(0, size, BULK):
        index.extend(
            [str(row) for row in range(start, min(size, start + BULK))], held[start : start + BULK].astype(np.float32)
        )
    say(f"{size}: building lists")
    builds = _build(index)
    figures: Figures = {"fill_s": round(time.perf_counter() - began_s, 2), "lists_s": builds}
    say(f"{size}: asking")
    figures |= _measure(index, prompts, held)
    figures["inserts_per_s"] = _insert_rate(index, prompts)
    figures["index_bytes_per_entry"] = round(index.nbytes / len(index))
    began_s = time.perf_counter()
    rebuilt_s = _turn_over(index, prompts, held, turnovers)
    passed_s = time.perf_counter() - began_s
    churned = _measure(index, prompts, held)
    figures["turnovers"] = turnovers
    figures["churn_per_s"] = round(turnovers * size / max(1e-9, passed_s))
    figures["churn_lists_s"] = round(rebuilt_s, 1)
    return figures | {f"churned_{name}": value for name, value in churned.items()}


def _draw(prompts: MadeUpEmbeddings, count: int) -> npt.NDArray[np.float16]:
    parts = [prompts.stored(min(50_000, count - start)).astype(np.float16) for start in range(0, count, 50_000)]
    return np.concatenate(parts)


def _build(index: PromptIndex) -> float:
    began_s = time.perf_counter()
    while index.wants_lists:
        index.adopt(index.snapshot().build())
    return round(time.perf_counter() - began_s, 2)


def _measure(index: PromptIndex, prompts: MadeUpEmbeddings, held: npt.NDArray[np.float16]) -> Figures:
    questions = prompts.questions(held, REPEATING, NEW)
    best, similarity = _truth(held, questions)
    right = np.array([index.nearest(q, 1)[0].entry_id == str(row) for q, row in zip(questions, best, strict=True)])
    wall_ms, cpu_ms = np.empty(LOOKUPS), np.empty(LOOKUPS)
    for number in range(LOOKUPS):
        question = questions[number % len(questions)]
        cpu_s, began_s = time.thread_time(), time.perf_counter()
        index.nearest(question, 4)
        wall_ms[number], cpu_ms[number] = 1e3 * (time.perf_counter() - began_s), 1e3 * (time.thread_time() - cpu_s)
    return {
        "recall": float(right.mean()),
        "recall_repeating": float(right[:REPEATING].mean()),
        "recall_new": float(right[REPEATING:].mean()),
        "similarity_repeating": float(similarity[:REPEATING].mean()),
        "similarity_new": float(similarity[REPEATING:].mean()),
        "lookup_p50_ms": round(float(np.percentile(wall_ms, 50)), 3),
        "lookup_p99_ms": round(float(np.percentile(wall_ms, 99)), 3),
        "lookup_cpu_p50_ms": round(float(np.percentile(cpu_ms, 50)), 3),
        "lookup_cpu_p99_ms": round(float(np.percentile(cpu_ms, 99)), 3),
    }


class NearestRows(NamedTuple):
    """The nearest row of each question, and its cosine."""

    rows: npt.NDArray[np.int64]
    cosines: npt.NDArray[np.float32]


def _truth(held: npt.NDArray[np.float16], questions: Vectors) -> NearestRows:
    """By comparing with all."""
    best = np.zeros(len(questions), np.int64)
    top = np.full(len(questions), -2.0, np.float32)
    for start in range(0, len(held), 50_000):
        part = held[start : start + 50_000].astype(np.float32)
        scores = questions @ (part / np.linalg.norm(part, axis=1, keepdims=True)).T
        place = scores.argmax(axis=1)
        value = scores[np.arange(len(questions)), place]
        better = value > top
        best[better], top[better] = start + place[better], value[better]
        if start and start % 500_000 == 0:
            say(f"  truth: {start} of {len(held)}")
    return NearestRows(best, top)


def _insert_rate(index: PromptIndex, prompts: MadeUpEmbeddings) -> int:
    """One at a time, as prompts come."""
    fresh = prompts.stored(2000)
    began_s = time.perf_counter()
    for number, vector in enumerate(fresh):
        index.add(f"new-{number}", vector)
    rate = len(fresh) / (time.perf_counter() - began_s)
    for number in range(len(fresh)):
        index.remove(f"new-{number}")
    return round(rate)


def _turn_over(index: PromptIndex, prompts: MadeUpEmbeddings, held: npt.NDArray[np.float16], turnovers: int) -> float:
    """Replace every prompt by another, so many times, in random order; the seconds that went into new lists."""
    draw = np.random.default_rng(2)
    lists_s = 0.0
    for turn in range(turnovers):
        for part in np.array_split(draw.permutation(len(held)), ROUNDS_PER_TURNOVER):
            for row in part.tolist():
                index.remove(str(row))
            held[part] = _draw(prompts, len(part))
            for start in range(0, len(part), BULK):
                rows = part[start : start + BULK]
                index.extend([str(row) for row in rows.tolist()], held[rows].astype(np.float32))
            lists_s += _build(index)
        say(f"{len(held)}: turnover {turn + 1} of {turnovers}")
    return lists_s
