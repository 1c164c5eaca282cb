"""Rate limits: how many images, and how many denoising steps, a tenant may ask for in a minute.

Decided from what the tenant used, its limit and what is asked for now. What was used melts away at the limit's rate,
and may reach one minute's worth: so a tenant that was quiet may ask for that much at once (a token bucket, told by what
is missing from it). What costs more than a minute's worth is admitted when nothing is used, and paid off later.

No library: those for Python count in windows of the wall clock, in stores of their own. They cannot let a large cost
through to be paid off. Decisions here take the time as an argument.
"""

from dataclasses import dataclass

from t2i_policy.request.admission import Refused, RefusedReason

MINUTE_S = 60.0
MIN_IMAGES = 1.0  # of a bucket: a share of a small limit must let one image through


@dataclass(frozen=True, slots=True)
class RateCost:
    """Images and denoising steps, as steps are counted everywhere."""

    images: float = 0.0
    steps: float = 0.0

    def plus(self, steps: float) -> "RateCost":
        """With one more image, of so many steps."""
        return RateCost(self.images + 1, self.steps + steps)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A minute; None = as many as one likes."""

    images: float | None = None
    steps: float | None = None

    def share(self, gateways: int) -> "RateLimit":
        """What each of so many gateways may let through."""
        return RateLimit(
            None if self.images is None else self.images / gateways,
            None if self.steps is None else self.steps / gateways,
        )


@dataclass(frozen=True, slots=True)
class RateUsage:
    """What a tenant used and has not paid off, at an instant."""

    images: float = 0.0
    steps: float = 0.0
    at_s: float = 0.0

    @property
    def is_none(self) -> bool:
        return self.images <= 0 and self.steps <= 0

    def at(self, limit: RateLimit, now_s: float) -> "RateUsage":
        """The same later: part of it has melted away. What has no limit is not kept."""
        passed = max(0.0, now_s - self.at_s) / MINUTE_S
        images, steps = _melted(self.images, limit.images, passed), _melted(self.steps, limit.steps, passed)
        return RateUsage(images, steps, now_s)

    def plus(self, cost: RateCost) -> "RateUsage":
        """With this cost too."""
        return RateUsage(self.images + cost.images, self.steps + cost.steps, self.at_s)


def judge_rate(usage: RateUsage, limit: RateLimit, cost: RateCost) -> Refused | None:
    """None = the tenant may have it. `usage` is of now, `limit` this gateway's share, `cost` that of all images of a
    request, which are admitted together.
    """
    waits = {
        "images": _wait_s(usage.images, limit.images, cost.images, MIN_IMAGES),
        "steps": _wait_s(usage.steps, limit.steps, cost.steps, 0.0),
    }
    what, wait_s = max(waits.items(), key=lambda item: item[1])
    if wait_s <= 0:
        return None
    message = f"the tenant's {what} for this minute are used up; the next are there in {wait_s:.1f} s"
    return Refused(RefusedReason.RATE_LIMITED, message, wait_s)


def _wait_s(used: float, limit: float | None, cost: float, least: float) -> float:
    """Until it fits; 0 = it does now."""
    if limit is None or cost <= 0:
        return 0.0
    room = max(limit, least)
    beyond = used + min(cost, room) - room
    return beyond / limit * MINUTE_S if beyond > 1e-9 * room else 0.0


def _melted(used: float, limit: float | None, minutes: float) -> float:
    return 0.0 if limit is None else max(0.0, used - limit * minutes)
