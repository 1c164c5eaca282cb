"""What the oracle is told: the clearing prices of a run's whole future."""

from t2i_policy.level import Level
from t2i_policy.request.options import Limits, Neighbourhood, eligible_options
from t2i_simulator.outcomes import Outcomes
from t2i_simulator.rivals.clearing import OracleKnowledge, TracedRequest, clear
from t2i_simulator.scenario import Scenario

WINDOW_S = 10.0
NO_NEIGHBOUR = -2.0  # as `Outcomes.similarity` says it


def knowledge_from(met: Outcomes, scenario: Scenario) -> OracleKnowledge:
    """Prices for the requests and neighbourhoods that another policy's run met, every kept step stored."""
    target, ladder = scenario.target, scenario.ladder
    stored, limits = frozenset(ladder.steps_to_keep), Limits(target.max_loss)
    steps_per_s, alone_s = 0.0, float("inf")
    for group in scenario.groups:
        steps_per_s += group.num_workers * len(group.profile.step_s) / group.profile.step_s[-1]
        alone_s = min(alone_s, group.profile.service_s(Level(0, ladder.base_steps), 1))
    asked = []
    for at_s, similarity, repeated in zip(met.arrived_s, met.similarity, met.repeated, strict=True):
        known = similarity > NO_NEIGHBOUR
        near = Neighbourhood(similarity if known else None, stored if known else frozenset(), repeated=repeated)
        options = eligible_options(ladder, scenario.profile, near, limits)
        asked.append(TracedRequest(at_s, tuple((option.level.steps_run, option.expected_loss) for option in options)))
    return clear(asked, steps_per_s, max(0.0, target.slo_s - alone_s), WINDOW_S)
