"""Time as Kubernetes writes it (RFC 3339, whole seconds, UTC), and back."""

from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Instant:
    """One instant: seconds since 1970."""

    unix_s: float

    @property
    def text(self) -> str:
        """As in `lastTransitionTime`."""
        return datetime.fromtimestamp(int(self.unix_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_instant(text: str) -> float:
    """Seconds since 1970; 0.0 for a text that is no time."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0
