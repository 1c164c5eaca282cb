"""The time that a look is decided at."""

from dataclasses import dataclass

from t2i_api.plan import render_time


@dataclass(frozen=True, slots=True)
class Instant:
    """One instant: seconds since 1970."""

    unix_s: float

    @property
    def text(self) -> str:
        """As in `lastTransitionTime`."""
        return render_time(self.unix_s)
