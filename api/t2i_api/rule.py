"""A rule of the pool document that spans fields, as one row: our check, the API server's (CEL), and the one message."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Numbers(Generic[T]):
    """The message once more, with a %d for each number; where we find the numbers, and where CEL does."""

    message: str
    found: Callable[[T], tuple[int, ...]]
    cel: tuple[str, ...]


class RuleMistake(NamedTuple):
    """One place that breaks a rule: the field as seen from the rule's part, and a message that names its value."""

    field: str
    message: str


def none_of(mistakes: Callable[[T], Iterable[RuleMistake]]) -> Callable[[T], bool]:
    """Whether a part has no mistake of this kind: what a rule holds that tells each."""
    return lambda part: not any(True for _ in mistakes(part))


@dataclass(frozen=True)
class PoolRule(Generic[T]):
    """`message` says what to do next, `field` is blamed.

    `holds` None: the rule compares with the former object, which only the API server has. `mistakes`: each place that
    breaks it, with more than CEL can say at its limit of cost.
    """

    holds: Callable[[T], bool] | None
    cel: str
    message: str
    field: str = ""
    numbers: Numbers[T] | None = None
    mistakes: Callable[[T], Iterable[RuleMistake]] | None = None

    def complaints(self, part: T) -> Iterator[RuleMistake]:
        """What is wrong with a part that breaks the rule."""
        if self.mistakes is not None:
            yield from self.mistakes(part)
        elif self.numbers is not None:
            yield RuleMistake(self.field, self.numbers.message % self.numbers.found(part))
        else:
            yield RuleMistake(self.field, self.message)

    @property
    def message_expression(self) -> str:
        """The message with numbers in CEL; empty without."""
        numbers = self.numbers
        return "" if numbers is None else f"'{numbers.message}'.format([{', '.join(numbers.cel)}])"
