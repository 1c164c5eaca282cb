"""Where an exception came from, for logs: its own text may hold a prompt. Knows no torch."""

import traceback
from pathlib import Path


def where(error: BaseException) -> str:
    """Class and place of an exception."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"
