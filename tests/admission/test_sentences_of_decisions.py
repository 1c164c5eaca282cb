"""The sentence of a decision says what really decided: the request, or what was measured."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from t2i_gateway.messages import decision_message
from t2i_policy.level import Level
from t2i_policy.request.decide import Decided
from t2i_policy.request.options import NOWHERE, WantedLevel, WantedReason
from t2i_policy.request.served import Served, ServedReason

ROOT = Path(__file__).parents[2]
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


@pytest.mark.parametrize("reason", [one for one in ServedReason if one is not ServedReason.AS_WANTED])
def test_what_changed_the_level_is_told(reason: ServedReason) -> None:
    """The level that runs and the wanted one differ, so the sentence says why."""
    level, less = Level(0, 8), Level(0, 5)
    wanted, served = WantedLevel(level, 0.0, WantedReason.NOTHING_HARMLESS), Served(less, 0.1, 1.0, reason)
    told = decision_message(Decided(NOWHERE, (), "", wanted, served, 0.5), 90.0, tells_nearest=True).message
    assert f" with {less.phrase}" in told


def test_people_are_told_what_each_reason_means() -> None:
    """On the playground and in docs/requests.md: each reason that a request may get, and no other."""
    reasons = {*WantedReason, *ServedReason} - {ServedReason.AS_WANTED}  # the reason is the wanted level's then
    words = (ROOT / "gateway/t2i_gateway/playground/static/words.js").read_text()
    assert {
        *re.findall(r"^  (\w+): \"", words.partition("const WHY = {")[2].partition("};")[0], re.MULTILINE)
    } == reasons
    _, _, page = (ROOT / "docs/requests.md").read_text().partition("## Why this level")
    rows = [row for row in page.partition("\n## ")[0].splitlines() if row.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])} == reasons


def test_repeat_is_told_where_nothing_is_cached_too() -> None:
    """It is promised less, for the diversity that a repeat loses; so the sentence says what it is."""
    level, near = Level(0, 5), replace(NOWHERE, repeated=True)
    wanted = WantedLevel(level, 0.1, WantedReason.SHORT_SCHEDULE)
    decided = Decided(near, (), "", wanted, Served(level, 0.1, 1.0, ServedReason.AS_WANTED), 0.0)
    told = decision_message(decided, 90.0, tells_nearest=True).message
    assert told.startswith("no similar prompt is cached, and this prompt was asked before with another seed; ")
    hidden = decision_message(decided, 90.0, tells_nearest=False).message
    assert "asked before" not in hidden
