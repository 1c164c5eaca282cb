"""Pictures in a terminal, by the protocols of kitty and iTerm2; nowhere else, so that no pipe gets any."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from PIL import Image
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import ControlType, Segment

KITTY_CHUNK = 4096  # base64 characters of one escape code, at most
KITTY_NAMES = ("kitty", "ghostty")
ITERM_NAMES = ("iterm", "wezterm")


class ImageProtocol(StrEnum):
    """How a terminal takes a picture."""

    KITTY = "kitty"
    ITERM2 = "iTerm2"


def image_protocol(console: Console, environment: Mapping[str, str]) -> ImageProtocol | None:
    """What the terminal says of itself; None: it shows none, is no terminal, or is behind one that passes none on."""
    if not console.is_terminal or console.is_dumb_terminal or "TMUX" in environment or "STY" in environment:
        return None
    names = " ".join(environment.get(name, "") for name in ("TERM", "TERM_PROGRAM", "LC_TERMINAL")).lower()
    if any(name in names for name in KITTY_NAMES):
        return ImageProtocol.KITTY
    return ImageProtocol.ITERM2 if any(name in names for name in ITERM_NAMES) else None


@dataclass(frozen=True, slots=True)
class InlineImage:
    """An image file that a rich console prints as a picture."""

    data: bytes
    protocol: ImageProtocol

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        png = as_png(self.data)
        codes = kitty_codes(png) if self.protocol is ImageProtocol.KITTY else iterm_code(png)
        yield Segment(codes + "\n", None, [(ControlType.CARRIAGE_RETURN,)])  # a control has no width: nothing wraps


def as_png(data: bytes) -> bytes:
    """Both protocols know PNG."""
    out = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        image.save(out, "PNG")
    return out.getvalue()


def kitty_codes(png: bytes) -> str:
    """https://sw.kovidgoyal.net/kitty/graphics-protocol: transmit a PNG in chunks and show it where the cursor is."""
    text = base64.b64encode(png).decode()
    chunks = [text[at : at + KITTY_CHUNK] for at in range(0, len(text), KITTY_CHUNK)]
    codes = []
    for index, chunk in enumerate(chunks):
        keys = "a=T,f=100,q=2," if index == 0 else ""  # q=2: the terminal answers nothing
        codes.append(f"\x1b_G{keys}m={int(index < len(chunks) - 1)};{chunk}\x1b\\")
    return "".join(codes)


def iterm_code(png: bytes) -> str:
    """https://iterm2.com/documentation-images.html: a file, shown where the cursor is."""
    return f"\x1b]1337;File=inline=1;size={len(png)}:{base64.b64encode(png).decode()}\x07"
