"""The sentence of a decision says what really decided: the request, or what was measured."""

import pytest

from t2i_gateway.messages import decision_message
from t2i_policy.level import Level
from t2i_policy.request.decide import Decided
from t2i_policy.request.options import NOWHERE, WantedLevel, WantedReason
from t2i_policy.request.served import Served, ServedReason

ASKED = {
    WantedReason.EXACT_REQUESTED: "the request asks for exact",
    WantedReason.SCHEDULE_REQUESTED: "the request fixes 5 steps",
    WantedReason.MODEL_REQUESTED: "the request asks for the model",
    WantedReason.UNMEASURED: "no level was measured",
}


@pytest.mark.parametrize("reason", WantedReason)
def test_what_a_request_asks_for_is_not_called_harmless(reason: WantedReason) -> None:
    """Nobody looked for a cheapest harmless level, and what a fixed schedule loses is not known."""
    level = Level(0, 5)
    wanted, served = WantedLevel(level, 0.0, reason), Served(level, 0.0, 1.0, ServedReason.AS_WANTED)
    told = decision_message(Decided(NOWHERE, (), "", wanted, served, 0.0), 100.0, tells_nearest=True).message
    assert ASKED.get(reason, "cheapest harmless") in told
    assert ("cheapest harmless" in told) is (reason not in ASKED)
    assert ("expected to be lost" in told) is (reason is not WantedReason.SCHEDULE_REQUESTED)
