"""What is known of one request and what was decided for it."""

from dataclasses import dataclass

from t2i_cache.catalogue import Neighbour
from t2i_cache.follow import Holdings
from t2i_gateway.neighbours import LatentPrefix
from t2i_gateway.request import ImageRequest
from t2i_policy.level import Ladder
from t2i_policy.profile import LevelProfile
from t2i_policy.request.admission import Admitted, Refused
from t2i_policy.request.decide import Decided
from t2i_policy.request.explain import LevelOutlook
from t2i_policy.request.options import WantedReason, loss_for
from t2i_sources.embedder import Embedding


@dataclass(frozen=True, slots=True)
class Arrived:
    """When a request came, and until when its image is wanted; of the event loop's clock."""

    at_s: float
    deadline_s: float


@dataclass(frozen=True, slots=True)
class RequestContext:
    """Seconds are of the event loop's clock. `admission` was decided when it arrived. `step_cost`: what a step of this
    image's size costs. `holdings`: which workers had the neighbour's latents then, where each keeps its own.
    `quality_percent` None: nobody measured it.
    """

    request: ImageRequest
    tenant: str
    arrived_s: float
    deadline_s: float
    embedding: Embedding | None
    prefix: LatentPrefix | None
    neighbour: Neighbour | None
    decided: Decided
    admission: Admitted | Refused
    base_steps: int
    step_cost: float = 1.0
    holdings: Holdings | None = None
    quality_percent: float | None = None

    @property
    def cost(self) -> float:
        """Of each of the level's steps on average: with an image to start from only a share of them runs."""
        return self.step_cost * self.request.drawing.images.steps_share

    def quality_percent_at(self, entry: LevelOutlook) -> float | None:
        """Of a level that is judged for this prompt."""
        if self.request.limits.fixed_steps is not None and entry.level == self.decided.served.level:
            return self.quality_percent  # the outlook takes what a request fixes for lossless
        return None if entry.expected_loss is None else 100 * (1 - entry.expected_loss)

    def is_worth_keeping(self, ladder: Ladder, reached: bool) -> bool:
        """Whether it is an exact run that levels may start from, and the worker reaches no latent of its prompt.

        `reached`: it can reach the neighbour's.
        """
        if self.decided.served.level != ladder.exact or not ladder.skips:
            return False
        near, prefix = self.neighbour, self.prefix
        return not (reached and near is not None and prefix is not None and prefix.holds_prompt(near.entry_id))


@dataclass(frozen=True, slots=True)
class Waited:
    """How long a request waited in the queue and took in all, and how often it was moved."""

    queued_s: float
    total_s: float
    retries: int


def expected_quality_percent(decided: Decided, profile: LevelProfile, is_measured: bool) -> float | None:
    """Of the served level for this prompt, percent of exact; None = nobody measured it.

    Levels of the pool are measured. A schedule that the request fixes may be one of the profile, by chance.
    `is_measured`: the profile speaks of images that are drawn like this one.
    """
    level = decided.served.level
    if level.model and not is_measured:
        return None
    if decided.wanted.reason is not WantedReason.SCHEDULE_REQUESTED:
        return decided.quality_percent
    if not is_measured and level.num_inference_steps != profile.base_steps:
        return None
    loss = loss_for(level, profile, decided.near)
    return None if loss is None else 100 * (1 - loss)
