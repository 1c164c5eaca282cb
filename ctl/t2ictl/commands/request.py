"""`t2ictl generate` and `t2ictl explain`."""

import os
from math import isfinite
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from t2i_protos.v1 import gateway_pb2, level_pb2
from t2i_runtime.level_messages import to_level
from t2ictl.client import FORMATS, Generated
from t2ictl.errors import InputInvalid
from t2ictl.image_request import with_request
from t2ictl.inline_images import InlineImage, image_protocol
from t2ictl.options import Limit
from t2ictl.running import console, run
from t2ictl.target import CallTarget, with_target

NUM_PREVIEWS, USUAL_STEPS = 4, 20


@with_target
@with_request
def generate(
    output: Annotated[Path, typer.Option("--output", "-o", help="image file: .png, .jpg or .webp")] = Path("out.png"),
    *,
    request: gateway_pb2.GenerateRequest,
    target: CallTarget,
    request_id: Annotated[str, typer.Option(help="a repeat of it never draws twice")] = "",
    previews: Annotated[
        bool, typer.Option(help="show them where the terminal can: kitty, iTerm2 and their kin")
    ] = True,
    timeout_s: Limit = 120.0,
) -> None:
    """Draw a prompt; prints level, reason and timings."""
    request.request_id = request_id
    if previews and image_protocol(console, os.environ) is not None:
        request.preview_every_steps = max(1, (request.num_inference_steps or USUAL_STEPS) // NUM_PREVIEWS)
    run(draw_images(console, target, request, output, timeout_s))


@with_target
@with_request
def explain(*, request: gateway_pb2.GenerateRequest, target: CallTarget, timeout_s: Limit = 10.0) -> None:
    """Say what would happen to a prompt now, and why, without drawing it."""
    run(show_explanation(console, target, request, timeout_s))


def output_format(path: Path) -> level_pb2.OutputFormat.ValueType:
    """The format of a file name.

    Raises:
        InputInvalid: unknown suffix.
    """
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise InputInvalid(f"--output must end in .png, .jpg or .webp, got {path.name!r}")
    return level_pb2.OutputFormat.Value(FORMATS[suffix])


async def draw_images(
    console: Console, target: CallTarget, request: gateway_pb2.GenerateRequest, out: Path, limit_s: float
) -> None:
    """Draw a prompt into files, with a progress bar for each image, and say what was done and why."""
    request.output_format = output_format(out)
    protocol = image_protocol(console, os.environ)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total} steps"))
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
        tasks = [bar.add_task("waiting", total=None) for _ in range(request.num_images)]

        def show(event: gateway_pb2.GenerateEvent) -> None:
            if event.HasField("preview") and protocol is not None:
                bar.console.print(InlineImage(event.preview.data, protocol))
            if event.HasField("progress"):
                at, total = event.progress.step, event.progress.num_inference_steps
                bar.update(tasks[event.image_index], description="denoising", completed=at, total=total)

        async with target.connected() as client:
            images = await client.generate_all(request, limit_s, show)
    out.parent.mkdir(parents=True, exist_ok=True)
    for index, generated in enumerate(images):
        path = out if len(images) == 1 else out.with_stem(f"{out.stem}-{index + 1}")
        path.write_bytes(generated.data)
        _print_result(console, generated, path)
    warnings = Console(stderr=True)
    for cut in images[0].done.prompt_cuts:  # all have the same prompt
        warnings.print(tell_cut(cut), highlight=False, soft_wrap=True)


def tell_cut(cut: level_pb2.PromptCut) -> str:
    """A sentence: which encoder stops where."""
    which = "negative prompt" if cut.negative else "prompt"
    return (
        f"the {which} is cut after {cut.kept_characters} characters for {cut.encoder}: it reads {cut.kept_tokens} of "
        f"{cut.total_tokens} tokens"
    )


def _in_words(level: level_pb2.Level) -> str:
    return to_level(level).phrase


def _print_result(console: Console, generated: Generated, out: Path) -> None:
    decision, done, timings = generated.accepted.decision, generated.done, generated.done.timings
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("wanted", _in_words(decision.wanted))
    table.add_row("served", f"{_in_words(done.served)}  [dim]({done.reason})[/dim]")
    table.add_row("why", decision.message)
    table.add_row("seed", f"{done.seed}  [dim]({tell_how_again(done)})[/dim]")
    table.add_row(
        "time",
        f"{timings.total_ms:.0f} ms = queue {timings.queue_ms:.0f} + wait {timings.wait_ms:.0f} + denoise "
        f"{timings.denoise_ms:.0f} + encode {timings.encode_ms:.0f} + rest",
    )
    if done.retries or done.replayed:
        table.add_row("note", f"{done.retries} retries" + (", replayed" if done.replayed else ""))
    table.add_row("image", f"{escape(str(out))} ({len(generated.data)} bytes)")
    console.print(table)


def tell_how_again(done: gateway_pb2.Done) -> str:
    """Which options of this command draw the image again, beside those that it had."""
    if not done.HasField("reproduction"):
        if done.served.skipped_steps:
            return "it started from another image's latents, so no seed draws it again"
        return "draws it again where this level is served; no option asks for it"
    steps = done.reproduction.num_inference_steps
    how = "--exact" if done.reproduction.exact else f"--steps {steps}"
    if done.reproduction.model:
        how += f" --model {done.reproduction.model}"
    return f"draws it again with {how} and all other options the same"


async def show_explanation(
    console: Console, target: CallTarget, request: gateway_pb2.GenerateRequest, limit_s: float
) -> None:
    """Say what would happen to a prompt, level by level."""
    async with target.connected() as client:
        answer = await client.explain(request, limit_s)
    decision = answer.decision
    console.print(
        f"would be served with [bold]{_in_words(decision.served)}[/bold] ({decision.reason}): {decision.message}"
    )
    if answer.refusal:
        console.print(f"[red]would be refused[/red]: {answer.refusal}")
    eligible = Column("eligible", overflow="fold")
    table = Table("level", "expected quality", "time", eligible, "expected loss", title="levels")
    for entry in answer.levels:
        known = entry.HasField("expected_quality_percent")
        chosen = " ←" if entry.level == decision.served else ""
        table.add_row(
            _in_words(entry.level) + chosen,
            f"{entry.expected_quality_percent:.1f}%" if known else "unknown",
            f"{entry.estimated_ms:.0f} ms" if isfinite(entry.estimated_ms) else "no worker",
            "yes" if entry.eligible else f"no: {entry.reason}",
            entry.explanation,
        )
    console.print(table)
    if answer.worker:
        console.print(f"worker {answer.worker} ({answer.placement_reason})")
