"""What a client has heard of its image's steps. A request that moves to another worker begins anew there.

The client's progress stands still until the new run has passed what was told: it never goes back, and no preview comes
twice.
"""

from t2i_gateway.events import PassedChunk, ToldEvent


class ToldSteps:
    """Of one image, over all workers that try it."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def is_new(self, event: ToldEvent) -> bool:
        """Whether the client gets it; it counts as told then."""
        if isinstance(event, PassedChunk):
            return True
        kind = event.WhichOneof("event") or ""
        if kind not in ("progress", "preview"):
            return True
        step = event.progress.step if kind == "progress" else event.preview.step
        if step <= self._last.get(kind, -1):
            return False
        self._last[kind] = step
        return True
