"""Where an exception came from. Logs show this and not its text, which may hold a prompt. It imports no torch."""

import traceback
from pathlib import Path


def where(error: BaseException) -> str:
    """The class of an exception, and the file and line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"
