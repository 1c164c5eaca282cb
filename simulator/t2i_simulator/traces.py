"""Traces: arrival times and prompts from files, every mistake named by file and line; and the lineage's bursty shape.

Arrivals: one time in milliseconds a line, in any order (published traces are jittered within a second, and not sorted);
blank lines and lines that begin with # are skipped.
Prompts: one a line, in order, cycled. Blank lines are skipped too: real logs hold some, and they mean nothing to embed.
"""

from collections.abc import Sequence
from math import isfinite
from pathlib import Path

import numpy as np

from t2i_simulator.errors import TraceInvalid

MAX_ARRIVALS = 20_000_000
MAX_PROMPT = 100_000  # characters; far longer is another kind of file
LINEAGE_BASE_PER_MINUTE = 50.0  # on 8 workers; read off the AccuScale artifact's plots
LINEAGE_PEAK_PER_MINUTE = 390.0
LINEAGE_WORKERS = 8


def read_arrivals(path: Path, speedup: float = 1.0) -> list[float]:
    """Arrival times in seconds, ascending from 0 (the first arrival's), divided by `speedup` > 0.

    Raises:
        TraceInvalid: not readable, no arrivals, or a line that is no time; names the line.
    """
    times_ms: list[float] = []
    for number, line in _lines(path):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        try:
            value = float(text)
        except ValueError:
            raise TraceInvalid(f"{path.name}, line {number}: expected a time in ms, got {text[:40]!r}") from None
        if not isfinite(value) or value < 0:
            raise TraceInvalid(f"{path.name}, line {number}: a time must be finite and not negative, got {text[:40]!r}")
        times_ms.append(value)
        if len(times_ms) > MAX_ARRIVALS:
            raise TraceInvalid(f"{path.name}: more than {MAX_ARRIVALS} arrivals; cut the trace")
    if not times_ms:
        raise TraceInvalid(f"{path.name}: holds no arrivals; one time in ms a line")
    times_ms.sort()
    return [(value - times_ms[0]) / 1e3 / speedup for value in times_ms]


def read_prompts(path: Path) -> list[str]:
    """Prompts in order.

    Raises:
        TraceInvalid: not readable, empty, or a line too long to be a prompt; names the line.
    """
    prompts = []
    for number, line in _lines(path):
        prompt = line.strip()
        if len(prompt) > MAX_PROMPT:
            raise TraceInvalid(f"{path.name}, line {number}: {len(prompt)} characters; a prompt has up to {MAX_PROMPT}")
        if prompt:
            prompts.append(prompt)
    if not prompts:
        raise TraceInvalid(f"{path.name}: holds no prompts; one a line")
    return prompts


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise TraceInvalid(f"{path.name}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise TraceInvalid(f"{path.name}, line {line}: not UTF-8") from error
    return list(enumerate(text.removesuffix("\n").split("\n"), start=1)) if text else []


def number_prompts(prompts: Sequence[str]) -> tuple[list[str], list[int]]:
    """The unique prompts in order of first appearance, and which of them each line is."""
    numbers: dict[str, int] = {}
    of_line = [numbers.setdefault(prompt, len(numbers)) for prompt in prompts]
    return list(numbers), of_line


def bursty_arrivals(minutes: float, num_workers: int, seed: int, burst_minutes: float = 5.0) -> list[float]:
    """The lineage's shape, scaled to the pool: Poisson around a base with three Gaussian bursts of that deviation.

    Heights are the artifact's, for 8 workers; the bursts' width is not known and assumed.
    """
    per_second = np.arange(int(minutes * 60))
    burst = sum(
        np.exp(-0.5 * ((per_second / 60 - minutes * share) / burst_minutes) ** 2) for share in (0.25, 0.5, 0.75)
    )
    rate = LINEAGE_BASE_PER_MINUTE + (LINEAGE_PEAK_PER_MINUTE - LINEAGE_BASE_PER_MINUTE) * burst
    random = np.random.default_rng([seed, 2])
    counts = random.poisson(rate / 60 * num_workers / LINEAGE_WORKERS)
    times = np.repeat(per_second, counts) + random.random(int(counts.sum()))
    return [float(value) for value in np.sort(times)]
