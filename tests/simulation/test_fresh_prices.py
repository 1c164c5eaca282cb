"""What is simulated pays the prices that a gateway would ask: of the demand of a second ago at most."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from t2i_policy.policies import PRICES_EVERY_S, Course, PromptAware
from t2i_policy.request.decide import Rules
from t2i_simulated_pools import poisson, simulated_pool
from t2i_simulator.engine import simulate


@dataclass(frozen=True, slots=True)
class Watched(PromptAware):
    """Ours, and the rates that it was asked for prices at."""

    seen: list[float] = field(default_factory=list)

    def reprice(self, rules: Rules, course: Course, rates_rps: Mapping[str, float]) -> Course:
        """As ours."""
        self.seen.append(sum(rates_rps.values()))
        return PromptAware.reprice(self, rules, course, rates_rps)


def test_prices_are_made_anew_each_second_between_plans() -> None:
    """Ten requests a second for a minute, and one plan at the beginning."""
    arrived_s, watched = poisson(10.0, 600), Watched()
    simulate(replace(simulated_pool(arrived_s), replan_every_s=1e6), watched)
    assert 0.8 * arrived_s[-1] / PRICES_EVERY_S <= len(watched.seen) <= 1 + arrived_s[-1] / PRICES_EVERY_S
    assert watched.seen[0] == 0.0  # a request is decided before it is counted
    assert watched.seen[10] < watched.seen[20] < watched.seen[40]  # a new demand is seen as it grows
