"""Contact sheets: many small images with a few lines of text under each."""

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

SIDE, GAP, LINE, COLUMNS = 144, 12, 13, 8
CHARACTERS = 25


@dataclass(frozen=True, slots=True)
class SheetCell:
    """One image (encoded) with its caption and a last line in bold."""

    image: bytes
    caption: str
    verdict: str


def write_sheet(cells: Sequence[SheetCell], title: str, to: Path, columns: int = COLUMNS) -> None:
    """Write a png with so many cells a row; small images are enlarged without smoothing."""
    wrapped = [textwrap.wrap(cell.caption, CHARACTERS)[:5] for cell in cells]
    text_lines = max((len(lines) for lines in wrapped), default=0) + 1
    width, height = SIDE + GAP, SIDE + GAP + LINE * text_lines + 6
    rows = -(-len(cells) // columns)
    sheet = Image.new("RGB", (columns * width + GAP, rows * height + GAP + 28), "white")
    draw = ImageDraw.Draw(sheet)
    font, bold = ImageFont.load_default(11), ImageFont.load_default(12)
    draw.text((GAP, 8), title, fill="black", font=ImageFont.load_default(14))
    for index, (cell, lines) in enumerate(zip(cells, wrapped, strict=True)):
        x, y = GAP + index % columns * width, 28 + GAP + index // columns * height
        image = Image.open(io.BytesIO(cell.image)).convert("RGB")
        resampling = Image.Resampling.NEAREST if image.width < SIDE else Image.Resampling.LANCZOS
        sheet.paste(image.resize((SIDE, SIDE), resampling), (x, y))
        for row, line in enumerate(lines):
            draw.text((x, y + SIDE + 2 + row * LINE), line, fill=(60, 60, 60), font=font)
        draw.text((x, y + SIDE + 3 + len(lines) * LINE), cell.verdict, fill=(0, 70, 160), font=bold)
    to.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(to)
