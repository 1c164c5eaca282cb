"""What a benchmark leaves: JSON, a page made of Markdown with holes, and lines of progress.

A page's words lie in `*.md.in` beside the benchmark; `{name}` and `{name:.1f}` are its holes, as in `str.format`.
"""

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.kit.machine import machine_facts

_began_s = time.perf_counter()


def write_json(path: Path, figures: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write figures, with the machine's facts beside them, and print them. Rows alone are only written."""
    document = {**figures, "machine": machine_facts()} if isinstance(figures, Mapping) else figures
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document, indent=1)
    path.write_text(text + "\n")
    print(text if isinstance(figures, Mapping) else f"written: {path}")


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, *rows]
    shown = ["| " + " | ".join(str(cell) for cell in line) + " |" for line in lines]
    return "\n".join([shown[0], "|---" * len(head) + "|", *shown[1:]])


def rows_table(columns: Mapping[str, str], rows: Iterable[Mapping[str, Any]]) -> str:
    """A table whose cells are filled from each row: heading -> format, such as `"p50 s": "{p50_s:.2f}"`."""
    return table(list(columns), ([cell.format(**row) for cell in columns.values()] for row in rows))


def fill(template: Path, **holes: object) -> str:
    return template.read_text().format(**holes)


def write_page(page: Path, template: Path, **holes: object) -> None:
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(fill(template, **holes).rstrip() + "\n")
    print(f"written: {page}", file=sys.stderr)


def say(text: str) -> None:
    """A line of progress."""
    print(f"[{time.perf_counter() - _began_s:6.0f} s] {text}", file=sys.stderr, flush=True)


def progress(title: str, done: int, total: int) -> None:
    """One line that moves."""
    print(f"\r{title:40} {done}/{total}   ", end="\n" if done == total else "", file=sys.stderr, flush=True)
