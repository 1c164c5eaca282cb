"""Latents that are set aside until somebody says that their image was allowed. Few, and not for long: one that is
forgotten costs its prompt a start from noise, no more.
"""

import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from t2i_worker.jobs import Job

MAX_SET_ASIDE = 64
KEEP_ASIDE_S = 120.0


@dataclass(frozen=True, slots=True)
class AsideLatent:
    """The final latent of a job, on the CPU. `since_s` is by the clock."""

    job: Job
    final: Tensor
    since_s: float


class LatentsAside:
    """By ids that nobody can guess. Used from one event loop."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._aside: OrderedDict[str, AsideLatent] = OrderedDict()

    def add(self, job: Job, final: Tensor) -> str:
        """Set it aside under a new id; the oldest go if there are too many."""
        held_id = secrets.token_urlsafe(16)
        self._aside[held_id] = AsideLatent(job, final, self._clock())
        while len(self._aside) > MAX_SET_ASIDE:
            self._aside.popitem(last=False)
        self._forget_old()
        return held_id

    def take(self, held_id: str) -> AsideLatent | None:
        """It, once; None if it is not there any more."""
        self._forget_old()
        return self._aside.pop(held_id, None)

    def _forget_old(self) -> None:
        oldest_s = self._clock() - KEEP_ASIDE_S
        while self._aside and next(iter(self._aside.values())).since_s < oldest_s:
            self._aside.popitem(last=False)
