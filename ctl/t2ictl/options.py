"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

DAY_S = 86400.0
MAX_PROMPTS = 1_000_000
DEFAULT_POOL = Path("examples/pool-scenes.yaml")
PAPER_POOL = Path("examples/pool-sdxl-8.yaml")
PoolFile = Annotated[Path, typer.Option("--pool", "-p", help="T2IServingPool file")]
Limit = Annotated[float, typer.Option("--timeout-s", min=0.001, max=DAY_S, help="give up after this many seconds")]
#: What the wire carries: uint64.
Seed = Annotated[int, typer.Option(min=0, max=2**64 - 1)]
ImageSeed = Annotated[int | None, typer.Option(min=0, max=2**64 - 1)]
QualityFloor = Annotated[int | None, typer.Option(min=0, max=100)]
NumWorkers = Annotated[int | None, typer.Option(min=1, max=4096, help="instead of the pool's number")]
ProfileForAll = Annotated[Path | None, typer.Option(help="profile JSON for all groups; default: each group's")]
ModelOfGroup = Annotated[
    list[str] | None, typer.Option("--model", help="GROUP=MODEL: it holds another model of its profile; repeatable")
]
EmbedderFolder = Annotated[Path | None, typer.Option(help="embedder folder; default: the builtin model's")]
