"""Groups of options that several commands have: each is one parameter of the command, made by one function."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

Command = Callable[..., None]


def with_group(name: str, made_by: Callable[..., Any]) -> Callable[[Command], Command]:
    """A command whose parameter `name` is the parameters of `made_by` on the command line."""
    group = inspect.signature(made_by).parameters

    def of(command: Command) -> Command:
        shown: list[inspect.Parameter] = []
        for parameter in inspect.signature(command).parameters.values():
            shown += group.values() if parameter.name == name else [parameter]
        shown = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in shown]

        @wraps(command)
        def called(**given: Any) -> None:
            made = made_by(**{name: given.pop(name) for name in group})
            command(**given, **{name: made})

        called.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]  # typer reads both
        called.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
        return called

    return of
