"""Hearing: does the reactor still hear what happens?

A quiet cluster sends no events, so silence alone proves nothing. But our own status writes must come back as events:
one that stays unheard for long means that the watch is dead although everything looks alive. Liveness fails on it.
"""

from dataclasses import dataclass, field

DEAF_S = 210.0  # three times kopf's inactivity timeout, after which it reconnects by itself


@dataclass(slots=True)
class Hearing:
    """Seconds of one monotonic clock. Keys are pools."""

    last_s: float
    _waiting: dict[str, tuple[float, str]] = field(default_factory=dict)
    _heard: dict[str, str] = field(default_factory=dict)

    def heard(self, now_s: float) -> None:
        """Any event of any watch."""
        self.last_s = now_s

    def heard_of(self, key: str, version: str) -> None:
        """An event of a pool, with its resource version."""
        self._heard[key] = version
        if key in self._waiting and _covers(version, self._waiting[key][1]):
            del self._waiting[key]

    def wrote(self, key: str, version: str, now_s: float) -> None:
        """We wrote a pool's status and it got this resource version. The event may have come before the answer."""
        heard = self._heard.get(key)
        if heard is not None and heard.isdigit() and _covers(heard, version):
            self._waiting.pop(key, None)
            return
        since_s = self._waiting.get(key, (now_s, ""))[0]
        self._waiting[key] = (since_s, version)

    def forget(self, key: str) -> None:
        """The pool is gone."""
        self._waiting.pop(key, None)
        self._heard.pop(key, None)

    def age_s(self, now_s: float) -> float:
        """Since the last event."""
        return now_s - self.last_s

    def unheard_s(self, now_s: float) -> float:
        """Since the oldest write that was not heard of; 0 if all were."""
        return max((now_s - since_s for since_s, _ in self._waiting.values()), default=0.0)

    def is_deaf(self, now_s: float) -> bool:
        """See the module."""
        return self.unheard_s(now_s) > DEAF_S


def _covers(heard: str, written: str) -> bool:
    """True if who heard of one version has heard of the other. Versions that are no numbers cannot be compared."""
    comparable = heard.isdigit() and written.isdigit()
    return not comparable or int(heard) >= int(written)
