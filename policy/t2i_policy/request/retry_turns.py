"""When each of many who are refused may come back.

Room for one more comes at the rate at which the pool makes images. If all who are refused came back with the first
room, all but one would be refused again. So each is told a turn of its own:

    turn = max(now + what the backlog takes, the turn before + 1 / images a second)

Turns lie at most MAX_RETRY_S ahead. Whoever comes later than that shares the second half of that time with others: more
will come then than there is room for, but not all at once. A turn is no promise, as nobody keeps a place free for it.
"""

from dataclasses import replace

from t2i_policy.request.admission import MAX_RETRY_S, Refused, RefusedReason

IN_TURN = (RefusedReason.OVERLOADED, RefusedReason.QUEUE_FULL)


def next_turn(before_s: float, now_s: float, after_s: float, images_per_s: float) -> float:
    """The instant to come back at; `before_s` is the last one that was told. All are of one clock."""
    turn_s = max(now_s + after_s, before_s + 1 / images_per_s)
    return turn_s if turn_s <= now_s + MAX_RETRY_S else now_s + MAX_RETRY_S / 2


class RetryTurns:
    """The turns that one gateway told, for each model."""

    def __init__(self) -> None:
        self._last_s: dict[str, float] = {}

    def give(self, refused: Refused, now_s: float, model: str, images_per_s: float) -> Refused:
        """The same refusal with a turn to come back at. Other refusals than for load, and without a rate, stay."""
        after_s = refused.retry_after_s
        if after_s is None or refused.reason not in IN_TURN or images_per_s <= 0:
            return refused
        turn_s = next_turn(self._last_s.get(model, now_s), now_s, after_s, images_per_s)
        self._last_s[model] = turn_s
        return replace(refused, retry_after_s=turn_s - now_s)
