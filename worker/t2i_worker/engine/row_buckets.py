"""Pad a forward to one of few numbers of rows, because each CUDA graph is for one number.

The buckets are 1, 2, ... 8, then 10, 12, 14, 16, then 20, 24, ...: at most a quarter more rows than asked. A filler
is a call of one row, the last row of the last call. So its values are ordinary ones, and its part of the output is
thrown away. No other row depends on it, beyond the rounding that any other batch size brings.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from torch import Tensor

from t2i_worker.engine.meeting import DenoiserCall, PartsList


def bucket_of(rows: int) -> int:
    """The smallest bucket that holds so many rows."""
    grain = 1 << max(0, (rows - 1).bit_length() - 3)
    return -(-rows // grain) * grain


def buckets_up_to(rows: int) -> Iterator[int]:
    """All buckets, the largest first: that of so many rows comes first."""
    bucket = bucket_of(rows)
    while bucket:
        yield bucket
        bucket = next((smaller for smaller in range(bucket - 1, 0, -1) if bucket_of(smaller) == smaller), 0)


def fill_bucket(calls: Sequence[DenoiserCall], shared: Collection[str]) -> Sequence[DenoiserCall]:
    """These calls and the fillers behind them."""
    rows = sum(call.rows for call in calls)
    missing = bucket_of(rows) - rows
    return [*calls, *[last_row(calls[-1], shared)] * missing] if missing else calls


def last_row(call: DenoiserCall, shared: Collection[str]) -> DenoiserCall:
    """A call of one row, whose signature is this call's."""
    arguments = {
        name: value if name in shared else _last_of(value, call.rows) for name, value in call.arguments.items()
    }
    return DenoiserCall(arguments, 1, call.signature)


def _last_of(value: Any, rows: int) -> Any:
    match value:
        case Tensor() if value.dim() and value.shape[0] == rows:
            return value[-1:]
        case dict():
            return {name: _last_of(one, rows) for name, one in value.items()}
        case list() if len(value) == rows and not isinstance(value, PartsList):
            return value[-1:]
        case list() | tuple():
            return type(value)(_last_of(one, rows) for one in value)
    return value
