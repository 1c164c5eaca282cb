"""What all parts of the pool document have in common."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.alias_generators import to_camel


class Part(BaseModel):
    """Base of every part of the document: camelCase outside, unknown fields are errors, frozen."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        """As for the API server, a field that is null is a field that is left out."""
        if not isinstance(data, Mapping):
            return data
        known = {*cls.model_fields, *(field.alias for field in cls.model_fields.values())}
        return {name: value for name, value in data.items() if value is not None or name not in known}
