"""Which asked prompts are measured from their twins, and from which. Pure."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from t2ictl.judging import Sample
from t2ictl.twins import Twin, make_twins


@dataclass(frozen=True, slots=True)
class TwinPair:
    """A prompt to draw, from the latents of `twin` as it is drawn with `twin_seed`."""

    asked: Sample
    twin: Twin
    twin_seed: int


def pair_twins(asked: Sequence[Sample], count: int, seed: int, reads: Callable[[str], bool]) -> tuple[TwinPair, ...]:
    """Up to `count` pairs, the kinds as even as the prompts allow; the embedder reads every twin whole."""
    rng = np.random.default_rng(seed)
    taken = Counter[str]()
    pairs: list[TwinPair] = []
    for sample in asked:
        if len(pairs) == count:
            break
        twins = [twin for twin in make_twins(sample.prompt, rng) if reads(twin.prompt)]
        if twins:
            twin = min(twins, key=lambda one: taken[one.kind])
            taken[twin.kind] += 1
            pairs.append(TwinPair(sample, twin, int(rng.integers(1 << 31))))
    return tuple(pairs)
