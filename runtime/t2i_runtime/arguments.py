"""What command lines of servers read alike."""

import argparse

MAX_DRAIN_S = 86400.0


def names(text: str) -> tuple[str, ...]:
    """Words that are separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def drain_seconds(text: str) -> float:
    """How long running requests get; for `type=` of an argument."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= MAX_DRAIN_S:
        raise argparse.ArgumentTypeError(f"a number of seconds from 0 to {MAX_DRAIN_S:.0f}, not {text!r}")
    return value
