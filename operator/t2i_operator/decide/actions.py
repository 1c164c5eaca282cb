"""Actions: what a decision asks the shell to do, each with its reason."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from t2i_operator.manifests.child import Manifest


class ApplyReason(StrEnum):
    """Why a child is written."""

    MISSING = "Missing"
    CHANGED = "Changed"  # the spec asks for something else
    DRIFTED = "Drifted"  # somebody else changed it


@dataclass(frozen=True, slots=True)
class Apply:
    """Server-side apply a child; `uid` is what it has now, None if it is not there."""

    manifest: Manifest
    reason: ApplyReason
    uid: str | None


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete exactly this object: a new one of the same name has another UID."""

    api_version: str
    kind: str
    name: str
    uid: str
    reason: str


@dataclass(frozen=True, slots=True)
class LabelPod:
    """Give a pod the label of the level it stands at."""

    name: str
    uid: str
    level: str


@dataclass(frozen=True, slots=True)
class WriteStatus:
    """Replace the pool's status."""

    status: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Announce:
    """An event on the pool. `warning`: somebody should look."""

    reason: str
    message: str
    warning: bool = False


Action = Apply | Delete | LabelPod | WriteStatus | Announce


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, in this order. `settled` = nothing is under way: no need to look again before something happens."""

    actions: tuple[Action, ...]
    settled: bool

    @property
    def children(self) -> tuple[Apply | Delete, ...]:
        """What is written first."""
        return tuple(action for action in self.actions if isinstance(action, Apply | Delete))

    @property
    def rest(self) -> tuple[Action, ...]:
        """Status, labels, events."""
        return tuple(action for action in self.actions if not isinstance(action, Apply | Delete))
