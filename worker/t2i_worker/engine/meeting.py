"""Calls of the denoiser meet here: those that can share a forward become one, and each gets its rows of the output.

Every request runs a stock pipeline, which calls the denoiser with whatever its family takes. Two calls can share a
forward when their signatures are equal: the same adapters at the same scales, and the same arguments. Their tensors are
of one type and of one shape beside the rows, and all else is equal. A value counts as

- rows, if its length is the call's number of rows (that of the first tensor): such values are concatenated,
- one number for all rows, if it is a tensor without dimensions (most timesteps): it is repeated for each row,
- what it holds, if it is a tuple or a dictionary,
- shared, otherwise, as positions and masks of a whole image are. Shared tensors must be equal byte for byte.

A call alone goes to the denoiser exactly as it came. So a request alone equals the stock pipeline by construction.
"""

import hashlib
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from t2i_worker.pipelines.active_parts import PLAIN_MODEL, ActiveParts

Arguments = Mapping[str, Any]
MAX_REMEMBERED = 64


@dataclass(frozen=True, slots=True, eq=False)
class DenoiserCall:
    """The arguments of one request's call. Calls of equal signature can share a forward, with the same parts."""

    arguments: Arguments
    rows: int
    signature: Hashable
    parts: ActiveParts = PLAIN_MODEL

    @property
    def kind(self) -> Hashable:
        """Calls of equal kind get outputs of equal shape."""
        return self.signature, self.rows


class SignatureReader:
    """Makes calls of one request. It remembers shared tensors, which are mostly the same objects at every step."""

    def __init__(self, shared: Collection[str], parts: ActiveParts = PLAIN_MODEL) -> None:
        self.shared = shared
        self._parts = parts
        self._digests: dict[int, tuple[Tensor, str]] = {}  # by identity; the tensor is held, so that no other gets it

    def read(self, arguments: Arguments) -> DenoiserCall:
        arguments = _with_lists_marked(arguments)
        rows = _rows_of(arguments)
        found = (
            (name, self._of(value, -1 if name in self.shared else rows)) for name, value in sorted(arguments.items())
        )
        return DenoiserCall(arguments, rows, (self._parts, *found), self._parts)

    def _of(self, value: Any, rows: int) -> Hashable:
        """`rows` is -1 for arguments that never hold rows."""
        match value:
            case Tensor():
                return self._of_tensor(value, rows)
            case dict():
                return tuple((name, self._of(one, rows)) for name, one in sorted(value.items()))
            case list() if _holds_rows(value, rows) and all(isinstance(one, Tensor) for one in value):
                return ("tensors", *{(one.dim(), one.dtype) for one in value})
            case list() if _holds_rows(value, rows):
                return ("values", frozenset(repr(one) for one in value))
            case list() | tuple():
                return tuple(self._of(one, rows) for one in value)
        return repr(value)

    def _of_tensor(self, value: Tensor, rows: int) -> Hashable:
        if value.dim() == 0:
            return ("number", value.dtype)
        if value.shape[0] == rows:
            return ("rows", value.shape[1:], value.dtype)
        return ("shared", value.shape, value.dtype, self._digest(value))

    def _digest(self, value: Tensor) -> str:
        known = self._digests.get(id(value))
        if known is not None:
            return known[1]
        if len(self._digests) >= MAX_REMEMBERED:
            self._digests.clear()
        raw = value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
        digest = hashlib.blake2b(raw.tobytes(), digest_size=16).hexdigest()
        self._digests[id(value)] = (value, digest)
        return digest


def merge_calls(calls: Sequence[DenoiserCall], shared: Collection[str]) -> Arguments:
    """The arguments of one forward for all these calls, whose signatures are equal."""
    first, rows = calls[0].arguments, [call.rows for call in calls]
    if len(calls) == 1:
        return first
    return {
        name: value if name in shared else _merged([call.arguments[name] for call in calls], rows)
        for name, value in first.items()
    }


def _merged(values: Sequence[Any], rows: Sequence[int]) -> Any:
    first = values[0]
    match first:
        case Tensor() if first.dim() == 0:
            return torch.cat([value.expand(count) for value, count in zip(values, rows, strict=True)])
        case Tensor() if first.shape[0] == rows[0]:
            return torch.cat(list(values))
        case dict():
            return {name: _merged([value[name] for value in values], rows) for name in first}
        case list() if _holds_rows(first, rows[0]):
            return [one for value in values for one in value]
        case list() | tuple():
            return type(first)(_merged([value[index] for value in values], rows) for index in range(len(first)))
    return first


def split_output(output: Any, rows: Sequence[int]) -> list[Any]:
    """The output of a shared forward, one part for each call; what is no row goes to all."""
    if len(rows) == 1:
        return [output]
    ends = list(accumulate(rows))
    match output:
        case Tensor() if output.dim() == 0:
            return [output] * len(rows)
        case Tensor() | list() if _holds_rows(output, ends[-1]):
            return [output[end - count : end] for end, count in zip(ends, rows, strict=True)]
        case dict():  # diffusers' outputs are dictionaries too
            parts = {name: split_output(value, rows) for name, value in output.items()}
            return [type(output)(**{name: part[index] for name, part in parts.items()}) for index in range(len(rows))]
        case list() | tuple():
            lists = [split_output(one, rows) for one in output]
            return [type(output)(part[index] for part in lists) for index in range(len(rows))]
    return [output] * len(rows)


def blank(output: Any) -> Any:
    """Zeros of an output's structure: the answer to a call whose step is skipped."""
    return over_tensors(torch.zeros_like, output)


def join_outputs(first: Any, second: Any, rows: int) -> Any:
    """Two outputs of so many rows each as one, in any structure; what holds no rows is that of the first."""
    match first:
        case Tensor() if first.dim() and first.shape[0] == rows:
            return torch.cat([first, second])
        case list() if _holds_rows(first, rows):
            return [*first, *second]
        case dict():
            return type(first)(**{name: join_outputs(one, second[name], rows) for name, one in first.items()})
        case list() | tuple():
            return type(first)(join_outputs(*pair, rows) for pair in zip(first, second, strict=True))
    return first


def over_tensors(function: Callable[..., Any], *outputs: Any) -> Any:
    """Apply a function to the tensors that stand at one place of each output."""
    last = outputs[-1]
    match last:
        case Tensor():
            return function(*outputs)
        case dict():
            return type(last)(**{name: over_tensors(function, *(one[name] for one in outputs)) for name in last})
        case list() | tuple():
            return type(last)(over_tensors(function, *parts) for parts in zip(*outputs, strict=True))
    return last


class PartsList(list[Any]):
    """A list whose items are no rows, however many: what a ControlNet found for each layer, what an image is for each
    IP-Adapter.
    """


def _with_lists_marked(arguments: Arguments) -> Arguments:
    """Lists of parts become `PartsList`, also one level below. All else stays the object that it is."""
    marked = {name: PartsList(value) for name, value in arguments.items() if _is_of_parts(name, value)}
    inner = {
        name: {**value, **within}
        for name, value in arguments.items()
        if type(value) is dict and (within := _marked_within(value))
    }
    return {**arguments, **marked, **inner} if marked or inner else arguments


def _marked_within(value: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: PartsList(one) for name, one in value.items() if _is_of_parts(name, one)}


def _is_of_parts(name: str, value: Any) -> bool:
    return isinstance(value, list) and ("image_embeds" in name or "residual" in name or "controlnet" in name)


def _holds_rows(value: Any, rows: int) -> bool:
    return len(value) == rows and not isinstance(value, PartsList)


def _rows_of(arguments: Arguments) -> int:
    for value in arguments.values():
        if isinstance(value, Tensor) and value.dim():
            return int(value.shape[0])
        if isinstance(value, list) and value and isinstance(value[0], Tensor) and not isinstance(value, PartsList):
            return len(value)
    return 1
