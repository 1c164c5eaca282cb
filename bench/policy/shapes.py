"""Arrivals of shapes that nobody tuned on: Poisson, with a rate that follows a curve of mean 1."""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
#: Rate over the mean rate at each second; of the number of seconds and a source of draws.
Shape = Callable[[int, np.random.Generator], Floats]


def mmpp(seconds: int, random: np.random.Generator) -> Floats:
    """A Markov-modulated Poisson process: quiet or three times as much, for 60 s and 30 s on average."""
    rates: list[float] = []
    while len(rates) < seconds:
        for rate, mean_s in ((1.0, 60.0), (3.0, 30.0)):
            rates += [rate] * (1 + int(random.exponential(mean_s)))
    return np.array(rates[:seconds])


def flash_crowd(seconds: int, random: np.random.Generator) -> Floats:
    """Four times the usual rate within 5 s, at one third of the time, fading away with a time constant of 60 s."""
    since_s = np.arange(seconds) - seconds / 3 - random.uniform(0, 30)
    risen = np.clip(since_s / 5, 0, 1)
    return np.asarray(1 + 3 * risen * np.exp(-np.clip(since_s - 5, 0, None) / 60), np.float64)


def ramp(seconds: int, random: np.random.Generator) -> Floats:  # noqa: ARG001
    """From 0.4 to 1.6 of the mean."""
    return np.linspace(0.4, 1.6, seconds)


def diurnal(seconds: int, random: np.random.Generator) -> Floats:
    """Two days in the time there is, between 0.4 and 1.6 of the mean."""
    return np.asarray(1 + 0.6 * np.sin(4 * np.pi * np.arange(seconds) / seconds + random.uniform(0, 2 * np.pi)))


def on_off(seconds: int, random: np.random.Generator) -> Floats:
    """40 s at 1.9 times the mean, 40 s at a tenth of it, as batch jobs do."""
    return np.where((np.arange(seconds) + random.integers(80)) % 80 < 40, 1.9, 0.1)


#: By name, with the mean load, in shares of what the pool carries with everybody at K=25.
SHAPES: Mapping[str, tuple[Shape, float]] = {
    "MMPP": (mmpp, 0.65),
    "flash crowd": (flash_crowd, 0.65),
    "ramp": (ramp, 0.75),
    "diurnal": (diurnal, 0.7),
    "on/off": (on_off, 0.65),
}


def arrivals(shape: Shape, rate_rps: float, count: int, seed: int) -> list[float]:
    """About `count` arrivals at this mean rate."""
    random = np.random.default_rng([seed, 5])
    rates = shape(max(1, round(count / rate_rps)), random)
    counts = random.poisson(rates / rates.mean() * rate_rps)
    times = np.repeat(np.arange(len(rates)), counts) + random.random(int(counts.sum()))
    return [float(at) for at in np.sort(times)]
