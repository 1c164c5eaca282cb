"""crds/ holds what the classes generate; a change of one without the other is a red test."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from t2i_api.crd import render_crd
from t2i_api.structural import SchemaError, structural_schema

CRD = Path(__file__).parents[2] / "crds" / "t2iservingpools.yaml"


def test_crd_is_generated_from_the_classes() -> None:
    """`make crds` changes nothing."""
    assert CRD.read_text() == render_crd(), "run `make crds` and commit crds/"


class _Choice(BaseModel):
    either: int | str


class _Map(BaseModel):
    counts: dict[str, int]


@pytest.mark.parametrize(("model", "field"), [(_Choice, "_Choice.either"), (_Map, "_Map.counts")])
def test_what_a_structural_schema_cannot_say_is_an_error(model: type[BaseModel], field: str) -> None:
    """A rule of a class is never lost in silence on its way into the schema."""
    with pytest.raises(SchemaError, match=field):
        structural_schema(model)
