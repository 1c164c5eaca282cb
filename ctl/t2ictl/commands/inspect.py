"""`t2ictl inspect`: what an image file says of how it was made."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from t2ictl.file_metadata import read_metadata
from t2ictl.running import console, told_in_a_line


def inspect(image: Annotated[Path, typer.Argument(help="a .png, .jpg or .webp file")]) -> None:
    """Print an image file's metadata: that a model made it, the seed, the model, the level, the pool."""
    with told_in_a_line():
        show_metadata(console, image)


def show_metadata(console: Console, image: Path) -> None:
    """A line for each property. A file without any says so: its metadata can have been taken away."""
    found = read_metadata(image)
    lines = [f"{name}: {_shown(value)}" for name, value in found.items()]
    for line in lines or [f"{image}: no metadata that says how it was made"]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _shown(value: str) -> str:
    """In one line, and nothing in it that a terminal obeys."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in value)
