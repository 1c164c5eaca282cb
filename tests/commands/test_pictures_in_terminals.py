"""Previews are shown by terminals that can show pictures, and nobody else gets a byte of them."""

import base64
import io
import re

import pytest
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from t2ictl.inline_images import ImageProtocol, InlineImage, image_protocol

KITTY, ITERM2 = ImageProtocol.KITTY, ImageProtocol.ITERM2
TERMINALS: dict[str, tuple[dict[str, str], ImageProtocol | None]] = {
    "kitty": ({"TERM": "xterm-kitty"}, KITTY),
    "Ghostty": ({"TERM": "xterm-256color", "TERM_PROGRAM": "ghostty"}, KITTY),
    "iTerm2": ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, ITERM2),
    "iTerm2 over ssh": ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, ITERM2),
    "WezTerm": ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, ITERM2),
    "another": ({"TERM": "xterm-256color"}, None),
    "kitty behind tmux": ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux"}, None),
    "nothing said": ({}, None),
}


@pytest.mark.parametrize("terminal", TERMINALS)
def test_a_terminal_is_known_by_what_it_says(terminal: str) -> None:
    """A pipe is none, whatever its environment says."""
    environment, protocol = TERMINALS[terminal]
    shown = Console(file=io.StringIO(), force_terminal=True, _environ=environment)
    assert image_protocol(shown, environment) is protocol
    assert image_protocol(Console(file=io.StringIO(), force_terminal=False), environment) is None


@pytest.mark.parametrize("protocol", ImageProtocol)
def test_the_picture_arrives_whole(protocol: ImageProtocol) -> None:
    """Beside a progress bar too, and as PNG, whatever the worker sent."""
    webp, out = io.BytesIO(), io.StringIO()
    picture = Image.effect_noise((128, 96), 90).convert("RGB")
    picture.save(webp, "WEBP", lossless=True)
    console = Console(file=out, force_terminal=True, width=40, _environ={"TERM": "xterm-kitty"})
    with Progress(console=console, transient=True) as bar:
        bar.add_task("denoising", total=3)
        bar.console.print(InlineImage(webp.getvalue(), protocol))
    if protocol is KITTY:
        chunks = re.findall("\x1b_G([^;]*);([^\x1b]*)\x1b\\\\", out.getvalue())
        assert [keys[-1] for keys, _ in chunks] == ["1"] * (len(chunks) - 1) + ["0"]
        assert all(len(text) <= 4096 for _, text in chunks)
        text = "".join(text for _, text in chunks)
    else:
        (text,) = re.findall("\x1b]1337;File=inline=1;size=[0-9]+:([^\x07]*)\x07", out.getvalue())
    sent = Image.open(io.BytesIO(base64.b64decode(text, validate=True)))
    assert (sent.format, sent.size) == ("PNG", (128, 96))
    assert sent.tobytes() == picture.tobytes()
