"""What requests lose that resume from each kind of stored run, against the exact run of their caption and seed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from bench.scenes.drawn import BANDS, Mask, ask
from bench.starts.stored_runs import GENERATIONS, SKIPS, RunToDraw, draw_stored, hops_of, make_lines
from t2i_scenes import embedder_path
from t2i_scenes.measuring import MeasuredScores
from t2i_scenes.sampling import Resume, ScenesModel
from t2i_sources.embedder import Embedder

TODAY = "state of an exact run"
ONCE, TWICE = "state of a run resumed once", "state of a run resumed twice"
HALF = "state of a 6-step run"
FINAL = "final of an exact run"
RESUMED = tuple(f"final of generation {generation}" for generation in range(1, GENERATIONS + 1))
SHORT_FINALS = {"final of a 6-step run": "6 steps", "final of a 4-step run": "4 steps"}
BENT = {**{start: f"resumed, {start.removeprefix('final of ')}" for start in RESUMED}, **SHORT_FINALS}
STARTS = (TODAY, ONCE, TWICE, HALF, FINAL, *RESUMED, *SHORT_FINALS)
Floats = np.ndarray[Any, np.dtype[np.float64]]
#: Of one block, and of all together: similarity, kind, where the source resumed, exact quality, and quality by start.
Document = dict[str, Any]


class MeanWithError(NamedTuple):
    mean: float
    error: float

    @classmethod
    def of(cls, values: Floats) -> "MeanWithError":
        return cls(
            float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else np.inf
        )


@dataclass(frozen=True, slots=True)
class Compared:
    """Per request, over all blocks. `quality[start][skip]` is in points of score, 100 is perfect."""

    similarity: Floats
    resumed_at: Floats
    exact: Floats
    quality: Mapping[str, Mapping[int, Floats]]
    source_quality: Mapping[str, Floats]
    source: Floats  # place in `source_quality` of the run that a request starts from

    @classmethod
    def of(cls, blocks: Sequence[Document]) -> "Compared":
        def joined(pick: Callable[[Document], Any]) -> Floats:
            return np.concatenate([np.asarray(pick(block), float) for block in blocks])

        starts = blocks[0]["quality"]
        before = np.cumsum([0, *(len(block["sources"]["exact"]) for block in blocks)])
        return cls(
            joined(lambda block: block["similarity"]),
            joined(lambda block: block["resumed_at"]),
            100 * joined(lambda block: block["exact"]),
            {
                start: {int(skip): 100 * joined(lambda block: block["quality"][start][skip]) for skip in by_skip}  # noqa: B023
                for start, by_skip in starts.items()
            },
            {
                name: 100 * joined(lambda block: block["sources"][name])  # noqa: B023
                for name in blocks[0]["sources"]
            },
            np.concatenate([first + np.asarray(block["source"]) for first, block in zip(before, blocks, strict=False)]),
        )

    @property
    def everybody(self) -> Mask:
        return np.ones(len(self.exact), bool)

    @property
    def bands(self) -> dict[str, Mask]:
        found: dict[str, Mask] = {}
        for low, high in BANDS:
            inside = (self.similarity >= low) & (self.similarity < high)
            if inside.sum() > 1:
                found[f"≥ {low:.2f}" if low > -1 else f"< {high:.2f}"] = inside
        return {**found, "all": self.everybody}

    def loss(self, start: str, skip: int, inside: Mask) -> MeanWithError:
        """Points below the exact run of the same caption and seed."""
        return MeanWithError.of((self.exact - self.quality[start][skip])[inside])

    def beyond(self, start: str, skip: int, inside: Mask, other: str = TODAY) -> MeanWithError:
        """Points that a start loses more than another one, in pairs."""
        return MeanWithError.of((self.quality[other][skip] - self.quality[start][skip])[inside])

    def passed_on(self, skip: int, inside: Mask) -> MeanWithError:
        """Of what bent runs had lost of their own quality, the share that requests lose which start from them.

        Least squares through zero over all finals but the exact ones; the error is a jackknife over the stored runs.
        """
        own = self.source_quality["exact"]
        lost = np.stack([(own - self.source_quality[run])[self.source] for run in BENT.values()])[:, inside]
        more = np.stack([(self.quality[FINAL][skip] - self.quality[start][skip])[inside] for start in BENT])
        of_run = self.source[inside]
        slopes = [
            float((lost * more)[:, others].sum() / (lost**2)[:, others].sum())
            for run in np.unique(of_run)
            for others in [of_run != run]
        ]
        error = np.sqrt((len(slopes) - 1) * np.var(slopes))
        return MeanWithError(float((lost * more).sum() / (lost**2).sum()), float(error))


def draw_block(num_sources: int, num_asked: int, seed: int) -> Document:
    """Sources and requests of their own; blocks of other seeds share none."""
    model, embedder = ScenesModel.load(), Embedder(embedder_path())
    drawing, rng = RunToDraw(model, model.constants.default_num_inference_steps), np.random.default_rng([seed, 17])
    lines = make_lines(num_sources, rng)
    kept = [line.members[0] for line in lines]
    kinds = ask(kept, num_asked, rng)
    asked = list(kinds)
    vectors = [np.stack([embedder.embed_now(one.text).vector for one in captions]) for captions in (asked, kept)]
    cosines = vectors[0] @ vectors[1].T
    nearest = cosines.argmax(1)
    stored = draw_stored(drawing, lines)
    near, theirs = torch.from_numpy(nearest), [kept[at].seed for at in nearest]
    seeds = [one.seed for one in asked]

    def from_state(name: str, skip: int, step: int | None = None) -> MeasuredScores:
        start = model.with_own_noise(stored[name].latents[step or skip][near], skip, seeds, theirs)
        return drawing.run(asked, f"{name}, K={skip}", Resume(skip, start))

    def from_final(name: str, skip: int) -> MeasuredScores:
        finals = stored[name].latents[max(stored[name].latents)]
        return drawing.resume_final(asked, finals[near], skip, f"final, {name}, K={skip}")

    quality = {
        TODAY: {skip: from_state("exact", skip) for skip in SKIPS},
        ONCE: {skip: from_state("trajectory, generation 1", skip) for skip in SKIPS[1:]},
        TWICE: {skip: from_state("trajectory, generation 2", skip) for skip in SKIPS[2:]},
        HALF: {6: from_state("6 steps", 6, 3)},  # only there the noise of both schedules is the same
        FINAL: {skip: from_final("exact", skip) for skip in SKIPS},
        **{start: {skip: from_final(name, skip) for skip in SKIPS} for start, name in BENT.items()},
    }
    return {
        "seed": seed,
        "similarity": [float(one) for one in cosines.max(1)],
        "kind": list(kinds.values()),
        "source": nearest.tolist(),
        "resumed_at": hops_of(lines, 0)[nearest].tolist(),
        "exact": _qualities(drawing.run(asked, "exact")),
        "quality": {
            start: {str(skip): _qualities(one) for skip, one in by_skip.items()} for start, by_skip in quality.items()
        },
        "sources": {name: run.quality.tolist() for name, run in stored.items()},
    }


def _qualities(drawn: MeasuredScores) -> list[float]:
    return [score.quality for score in drawn.scores]
