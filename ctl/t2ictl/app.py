"""The command line: all commands of `t2ictl`. A command's module is imported when it is asked for, or for the help."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, cast

import typer
from typer.core import TyperGroup

#: Of `t2ictl.commands`, in the order of the help. A module's `app` is a group; a function is a command.
COMMANDS: Mapping[str, tuple[str, str]] = {
    "generate": ("request", "generate"),
    "explain": ("request", "explain"),
    "inspect": ("inspect", "inspect"),
    "profile": ("profile", "profile"),
    "demo": ("demo", "demo"),
    "simulate": ("simulate", "simulate"),
    "plan": ("plan", "plan"),
    "token": ("token", "token"),
    "local": ("local", "app"),
    "cluster": ("cluster", "app"),
    "cache": ("cache", "app"),
}


def imported(name: str) -> Any:
    """A command's function, or the `typer.Typer` of a group."""
    module, attribute = COMMANDS[name]
    return getattr(import_module(f"t2ictl.commands.{module}"), attribute)


class ImportedCommands(Mapping[str, Any]):
    """Click's commands by name, each made when it is first read."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            try:
                found = imported(name)
            except KeyboardInterrupt:
                raise SystemExit(130) from None  # as quietly as from a command at work
            self._made[name] = _click_command(name, found)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


def _click_command(name: str, found: Any) -> Any:
    if isinstance(found, typer.Typer):
        made: Any = typer.main.get_group(found)
    else:
        alone = typer.Typer(add_completion=False)
        alone.command(name)(found)
        made = typer.main.get_command(alone)
    made.name = name
    return made


class ImportingGroup(TyperGroup):
    """A group of `COMMANDS`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = cast(Any, ImportedCommands())


app = typer.Typer(cls=ImportingGroup, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def t2ictl() -> None:
    """Run and ask a t2i-serving pool."""
