"""What each tenant used of its rate limits in this gateway. Limits are the pool's, shared out among gateways."""

from collections.abc import Callable

from t2i_api.gateway import RateLimitsPart
from t2i_policy.request.admission import Refused
from t2i_policy.request.rate_limits import RateCost, RateLimit, RateUsage, judge_rate

MAX_TENANTS = 10_000


class TenantRates:
    """Used from one event loop. `clock` in seconds."""

    def __init__(self, part: RateLimitsPart, gateways: int, clock: Callable[[], float]) -> None:
        images, steps = part.requests_per_minute, part.steps_per_minute
        self._others = RateLimit(images, steps).share(gateways)
        self._shares = {
            one.name: RateLimit(one.requests_per_minute or images, one.steps_per_minute or steps).share(gateways)
            for one in part.tenants
        }
        self._used: dict[str, RateUsage] = {}  # of those that used any
        self._clock = clock

    def judge(self, tenant: str, cost: RateCost) -> Refused | None:
        """Whether the tenant may have it now; counts nothing."""
        return judge_rate(self._now(tenant), self._share(tenant), cost)

    def charge(self, tenant: str, cost: RateCost) -> None:
        """The tenant was admitted with this."""
        self._keep(tenant, self._now(tenant).plus(cost))

    def _share(self, tenant: str) -> RateLimit:
        return self._shares.get(tenant, self._others)

    def _now(self, tenant: str) -> RateUsage:
        return self._used.get(tenant, RateUsage()).at(self._share(tenant), self._clock())

    def _keep(self, tenant: str, usage: RateUsage) -> None:
        if usage.is_none or self._share(tenant) == RateLimit():
            self._used.pop(tenant, None)
            return
        self._used[tenant] = usage
        if len(self._used) > MAX_TENANTS:
            self._forget()

    def _forget(self) -> None:
        """Who has paid off all goes; then whoever asked longest ago, who begins anew."""
        present = {tenant: self._now(tenant) for tenant in self._used}
        oldest = sorted(present, key=lambda tenant: self._used[tenant].at_s)[: MAX_TENANTS // 10]
        gone = {tenant for tenant, usage in present.items() if usage.is_none} or set(oldest)
        self._used = {tenant: usage for tenant, usage in self._used.items() if tenant not in gone}
