"""Traces: arrival times and prompts from files. An error names the file and the line.

A file of arrivals holds one time in milliseconds a line, in any order: published traces are jittered and not sorted.
Blank lines and lines that begin with # are skipped. A file of prompts holds one prompt a line; blank lines are skipped,
because real logs hold some.
"""

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import NamedTuple

import numpy as np

from t2i_simulator.errors import TraceInvalid

MAX_ARRIVALS = 20_000_000
MAX_PROMPT = 100_000  # characters; a longer line means that this is no file of prompts
LINEAGE_BASE_PER_MINUTE = 50.0  # on 8 workers, from the plots of the AccuScale artifact
LINEAGE_PEAK_PER_MINUTE = 390.0
LINEAGE_WORKERS = 8


def read_arrivals(path: Path, speedup: float = 1.0) -> list[float]:
    """Arrival times in rising seconds, the first at 0, divided by `speedup` > 0.

    Raises:
        TraceInvalid: the file cannot be read, holds no arrivals, or a line is no time.
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
    """The prompts in their order.

    Raises:
        TraceInvalid: the file cannot be read, holds no prompts, or a line is too long for a prompt.
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


class NumberedPrompts(NamedTuple):
    """The unique prompts in order of first appearance, and for each line which of them it is."""

    unique: list[str]
    of_line: list[int]


def number_prompts(prompts: Sequence[str]) -> NumberedPrompts:
    numbers: dict[str, int] = {}
    of_line = [numbers.setdefault(prompt, len(numbers)) for prompt in prompts]
    return NumberedPrompts(list(numbers), of_line)


def bursty_arrivals(minutes: float, num_workers: int, seed: int, burst_minutes: float = 5.0) -> list[float]:
    """Poisson arrivals around a base rate with three Gaussian bursts, as in the AccuScale artifact.

    The heights are the artifact's, scaled from 8 workers to the pool. The width of the bursts, a standard deviation of
    `burst_minutes`, is assumed.
    """
    per_second = np.arange(int(minutes * 60))
    burst = sum(
        np.exp(-0.5 * ((per_second / 60 - minutes * share) / burst_minutes) ** 2) for share in (0.25, 0.5, 0.75)
    )
    rate = LINEAGE_BASE_PER_MINUTE + (LINEAGE_PEAK_PER_MINUTE - LINEAGE_BASE_PER_MINUTE) * burst
    random = np.random.default_rng([seed, 2])
    counts = random.poisson(rate / 60 * num_workers / LINEAGE_WORKERS)
    times = np.repeat(per_second, counts) + random.random(int(counts.sum()))  # uniform within each second
    return [float(value) for value in np.sort(times)]
