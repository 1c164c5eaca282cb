"""Which asked prompts are measured from their twins, and from which. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from t2i_profiler.judge import Sample
from t2i_profiler.twins import Twin, TwinKind, make_twins


@dataclass(frozen=True, slots=True)
class TwinPair:
    """A prompt to draw, from the latents of `twin` as it is drawn with `twin_seed`."""

    asked: Sample
    twin: Twin
    twin_seed: int


def pair_twins(asked: Sequence[Sample], count: int, seed: int, reads: Callable[[str], bool]) -> tuple[TwinPair, ...]:
    """Up to `count` pairs, the kinds as even as the prompts allow; the embedder reads every twin whole."""
    rng = np.random.default_rng(seed)
    waiting: dict[str, list[tuple[Sample, Twin]]] = {kind: [] for kind in reversed(TwinKind)}
    for sample in asked:
        for twin in make_twins(sample.prompt, rng):
            waiting[twin.kind].insert(0, (sample, twin))
    pairs: dict[str, TwinPair] = {}
    while any(waiting.values()) and len(pairs) < count:
        for left in waiting.values():
            while left and len(pairs) < count:
                sample, twin = left.pop()
                if sample.prompt not in pairs and reads(twin.prompt):
                    pairs[sample.prompt] = TwinPair(sample, twin, int(rng.integers(1 << 31)))
                    break
    return tuple(pairs.values())
