"""`t2ictl profile --search N`: the best N computed steps of this model, by images of its running workers.

Every set is judged by the same prompts and seeds, those whose latents are kept. What the best one loses is measured on
the asked prompts afterwards, like any level's: the search itself promises nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from t2i_policy.level import COMPUTED_FIRST, LEAST_FORECAST_STEPS, Level
from t2i_profiler.errors import SamplesInvalid
from t2i_profiler.images import Sample
from t2i_profiler.judges.judge import JudgedImage, qualities
from t2i_profiler.mask_search import Mask, best_mask, even_masks, next_masks, to_level
from t2i_profiler.measure import ProfileTools, all_of
from t2i_profiler.worker_client import WorkerClient, connect_workers

SEARCH_PROMPTS = 24
Scores = npt.NDArray[np.float64]  # one a prompt


@dataclass(frozen=True, slots=True)
class FoundSteps:
    """The level of a budget to measure, the best one at even distances, and what both lost in the search.

    `lead`: by how much the best set loses less, and `error` its standard error over prompts, in pairs. A set that does
    not lead by more than that is not taken: `level` is `even` then.
    """

    level: Level
    even: Level
    loss: float
    even_loss: float
    lead: float
    error: float
    num_sets: int

    @property
    def sentence(self) -> str:
        """For people."""
        lead = f"{100 * self.lead:.1f} ± {100 * self.error:.1f}%"
        even = f"{self.even.phrase} lost {100 * self.even_loss:.1f}%"
        if self.level == self.even:
            return f"searched {self.num_sets} sets of steps: {even}; the best leads by {lead} only and is not taken"
        found = f"{self.level.phrase} lost {100 * self.loss:.1f}%"
        return f"searched {self.num_sets} sets of steps: {found}, {even}, {lead} more; other prompts measure both"


def check_budget(budget: int, base_steps: int) -> None:
    """Raises:
    SamplesInvalid: no set of so many steps can be searched.
    """
    if base_steps < LEAST_FORECAST_STEPS or not COMPUTED_FIRST < budget < base_steps:
        raise SamplesInvalid(
            f"--search must be from {COMPUTED_FIRST + 1} to numInferenceSteps - 1 = {base_steps - 1}, of at least "
            f"{LEAST_FORECAST_STEPS} steps, got {budget}"
        )


async def search_steps(
    addresses: Sequence[str], samples: Sequence[Sample], exact: Level, tools: ProfileTools, budget: int
) -> FoundSteps:
    """The search on these workers, by the first judge, with its progress on the bar."""
    num_steps, asked = exact.num_inference_steps, samples[:SEARCH_PROMPTS]
    check_budget(budget, num_steps)
    measured: dict[Mask, Scores] = {}
    async with connect_workers(addresses, tools.yields, tools.open_channel) as workers:
        whole = await _draw(workers, asked, exact)

        async def scores_of(level: Level) -> Scores:
            images = whole if level == exact else await _draw(workers, asked, level)
            judged = [JudgedImage(*one) for one in zip(images, whole, asked, strict=True)]
            return np.array(await qualities(tools.judges[0], judged))

        exact_scores = await scores_of(exact)
        task = tools.bar.add_task(f"searching {budget} of {num_steps} steps", total=None)
        while masks := next_masks(_means(measured), budget, num_steps):
            tools.bar.update(task, total=len(measured) + len(masks))
            for mask in masks:
                scores = await scores_of(Level(0, num_steps, computed_steps=mask))
                measured[mask] = (exact_scores - scores) / max(1e-9, float(exact_scores.mean()))
                tools.bar.advance(task)
    return _judge(measured, budget, num_steps)


def _judge(measured: Mapping[Mask, Scores], budget: int, num_steps: int) -> FoundSteps:
    losses = _means(measured)
    best = best_mask(losses)
    even = best_mask({mask: losses[mask] for mask in even_masks(budget, num_steps)})
    leads = measured[even] - measured[best]
    lead, error = float(leads.mean()), float(leads.std(ddof=1) / np.sqrt(len(leads)))
    taken = best if lead > error else even
    levels = [to_level(mask, num_steps) for mask in (taken, even)]
    return FoundSteps(levels[0], levels[1], losses[taken], losses[even], lead, error, len(measured))


def _means(measured: Mapping[Mask, Scores]) -> dict[Mask, float]:
    return {mask: float(losses.mean()) for mask, losses in measured.items()}


async def _draw(workers: Sequence[WorkerClient], asked: Sequence[Sample], level: Level) -> list[bytes]:
    turns = [(one, workers[number % len(workers)]) for number, one in enumerate(asked)]
    drawn = await all_of([worker.draw(worker.order(one.prompt, one.seed, level)) for one, worker in turns])
    return [one.data for one in drawn]
