"""A rule of the pool document that spans fields, as one row: our check, the API server's (CEL), and the one message."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Numbers(Generic[T]):
    """The message once more, with a %d for each number; where we find the numbers, and where CEL does."""

    message: str
    found: Callable[[T], tuple[int, ...]]
    cel: tuple[str, ...]


@dataclass(frozen=True)
class PoolRule(Generic[T]):
    """`message` says what to do next, `field` is blamed.

    `holds` None: the rule compares with the former object, which only the API server has.
    """

    holds: Callable[[T], bool] | None
    cel: str
    message: str
    field: str = ""
    numbers: Numbers[T] | None = None

    def complaint(self, part: T) -> str:
        """What is wrong with a part that breaks the rule."""
        return self.message if self.numbers is None else self.numbers.message % self.numbers.found(part)

    @property
    def message_expression(self) -> str:
        """The message with numbers in CEL; empty without."""
        numbers = self.numbers
        return "" if numbers is None else f"'{numbers.message}'.format([{', '.join(numbers.cel)}])"
