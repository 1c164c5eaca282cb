"""Pools as the command line speaks of them: their names, and what the API server says of one."""

from dataclasses import dataclass
from typing import Any, Self

from t2i_api.status import PoolStatus
from t2ictl.errors import InputInvalid


@dataclass(frozen=True, slots=True)
class PoolName:
    """`NAMESPACE/NAME`."""

    namespace: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """From an option.

        Raises:
            InputInvalid: not of that form.
        """
        namespace, slash, name = text.partition("/")
        if not (slash and namespace and name) or "/" in name:
            raise InputInvalid(f"--pool must be NAMESPACE/NAME, such as default/scenes, got {text!r}")
        return cls(namespace, name)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class PoolSeen:
    """A pool with its status; `mode` is the spec's mix mode."""

    name: PoolName
    mode: str
    status: PoolStatus

    @classmethod
    def read(cls, document: dict[str, Any]) -> Self:
        metadata, spec = document["metadata"], document.get("spec", {})
        name = PoolName(metadata["namespace"], metadata["name"])
        return cls(name, spec.get("mix", {}).get("mode", "Auto"), PoolStatus.model_validate(document.get("status", {})))
