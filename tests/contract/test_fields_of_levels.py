"""Each place that spells a level out knows all of its fields: one that is left out would be lost without a word."""

from collections.abc import Callable

import pytest

from t2i_api.levels import LevelPart, coordinates
from t2i_api.names import level_value
from t2i_api.status import LevelStatus
from t2i_gateway.doors.answers import level_body
from t2i_policy.level import COORDINATES, Level, parse_level, render_level
from t2i_protos.v1 import level_pb2
from t2i_runtime.level_messages import level_message, to_level

STEPS = 12
PLAIN = Level(0, STEPS)
#: A level that has the field, for each field. A new one needs a line here; the tests below name who leaves it out.
WITH = {
    "skipped_steps": Level(3, STEPS),
    "num_inference_steps": Level(0, 8),
    "forecast": Level(0, STEPS, forecast=2),
    "guided_steps": Level(0, STEPS, guided_steps=6),
    "solver": Level(0, STEPS, solver="unipc"),
    "computed_steps": Level(0, STEPS, computed_steps=(0, 1, 4, 8)),
    "model": Level(0, STEPS, model="turbo"),
}
THERE_AND_BACK: dict[str, Callable[[Level], Level]] = {
    "the pool's document": lambda level: LevelPart.of(level).level(STEPS),
    "the pool's document, spelled out": lambda level: LevelPart.of(level).spelled_out(STEPS).level(STEPS),
    "the pool's status": lambda level: LevelStatus(**coordinates(level), workers=1, ready=1, load_percent=0).level,
    "the wire": lambda level: to_level(level_message(level)),
    "files": lambda level: parse_level(render_level(level)),
}
TOLD: dict[str, Callable[[Level], object]] = {
    "the label in tables and metrics": lambda level: level.label(STEPS),
    "the phrase in sentences": lambda level: level.phrase,
    "the label of pods": level_value,
    "the answer by HTTP": lambda level: level_body(level_message(level)),
}


def test_there_is_a_level_for_each_field() -> None:
    """So that the tests below are about all of them; the wire calls them the same."""
    assert (
        WITH.keys() == set(COORDINATES) == set(LevelPart.model_fields) == set(level_pb2.Level.DESCRIPTOR.fields_by_name)
    )
    assert all(getattr(level, name) != getattr(PLAIN, name) for name, level in WITH.items())
    assert all(level != PLAIN for level in WITH.values()), "Level compares its fields by hand"


@pytest.mark.parametrize("level", [pytest.param(level, id=name) for name, level in WITH.items()])
@pytest.mark.parametrize("way", THERE_AND_BACK)
def test_a_level_comes_back_as_it_was(way: str, level: Level) -> None:
    """A field that one direction forgets would be another level, of other cost and loss."""
    assert THERE_AND_BACK[way](level) == level


@pytest.mark.parametrize("level", [pytest.param(level, id=name) for name, level in WITH.items()])
@pytest.mark.parametrize("place", TOLD)
def test_two_levels_are_told_apart(place: str, level: Level) -> None:
    """Two rows of a table, two series of a metric or two pods that look the same are taken for one."""
    assert TOLD[place](level) != TOLD[place](PLAIN)


def test_what_follows_from_a_level_is_not_told_as_if_it_were_part_of_it() -> None:
    """A client that reads the fields of an answer finds those of the contract."""
    assert level_body(level_message(PLAIN)) == {"phrase": "12 steps", "skipped_steps": 0, "num_inference_steps": 12}
