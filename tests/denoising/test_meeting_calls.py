"""Which calls of a denoiser may share a forward, and that each gets its own rows of it."""

from typing import Any

import pytest
import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from hypothesis import given
from hypothesis import strategies as st

from t2i_worker.engine.meeting import DenoiserCall, SignatureReader, blank, merge_calls, split_output

X, IDS = torch.zeros(2, 3), torch.arange(12).view(4, 3)
CASES: dict[str, tuple[bool, dict[str, Any], dict[str, Any]]] = {
    "other values in the rows": (True, {"x": X}, {"x": X + 1}),
    "another number of rows": (True, {"x": X, "t": torch.tensor(3)}, {"x": X[:1], "t": torch.tensor(4)}),
    "rows of another shape": (False, {"x": X}, {"x": torch.zeros(2, 4)}),
    "rows of another type": (False, {"x": X}, {"x": X.double()}),
    "a number of another type": (False, {"x": X, "t": torch.tensor(3)}, {"x": X, "t": torch.tensor(3.0)}),
    "equal positions of the whole image": (True, {"x": X, "ids": IDS}, {"x": X, "ids": IDS.clone()}),
    "other positions of equal shape": (False, {"x": X, "ids": IDS}, {"x": X, "ids": IDS + 1}),
    "positions that are as long as the rows": (False, {"x": X, "pos": X}, {"x": X, "pos": X + 1}),
    "another flag": (False, {"x": X, "flag": True}, {"x": X, "flag": False}),
    "an argument more": (False, {"x": X, "mask": None}, {"x": X}),
    "rows within a dictionary": (True, {"x": X, "added": {"ids": X}}, {"x": X, "added": {"ids": X + 1}}),
    "equal numbers for each row": (True, {"x": X, "lens": [5, 5]}, {"x": X[:1], "lens": [5]}),
    "other numbers for each row": (False, {"x": X, "lens": [5, 5]}, {"x": X, "lens": [6, 6]}),
    "a list with a tensor for each row": (True, {"x": [X, X]}, {"x": [X + 1]}),
}


def read(arguments: dict[str, Any]) -> DenoiserCall:
    return SignatureReader(("pos",)).read(arguments)


@pytest.mark.parametrize("sentence", CASES)
def test_calls_meet_only_if_one_forward_is_right_for_both(sentence: str) -> None:
    """A doubt means two forwards: slower, and never wrong."""
    meets, one, other = CASES[sentence]
    assert (read(one).signature == read(other).signature) is meets


def test_tensor_that_is_reused_is_read_once_and_a_new_one_again() -> None:
    """Positions are the same object at every step; one that took its place is another."""
    reader = SignatureReader(())
    first = reader.read({"x": X, "ids": IDS}).signature
    assert reader.read({"x": X, "ids": IDS}).signature == first
    for other in range(200):
        assert reader.read({"x": X, "ids": IDS + 1 + other}).signature != first


def rows_in(output: Any) -> torch.Tensor:
    match output:
        case torch.Tensor():
            return output
        case dict():
            return output["sample"]
        case tuple():
            return output[0]
    return torch.stack(output)


@given(
    rows=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    form=st.sampled_from(["tensor", "tuple", "output", "list"]),
)
def test_each_gets_the_rows_that_it_would_get_alone(rows: list[int], form: str) -> None:
    """Whatever form a denoiser's output has."""

    def denoise(arguments: Any) -> Any:
        out = arguments["x"] * (arguments["t"].view(-1, 1) + 1) + arguments["added"]["y"]
        forms = {"tensor": out, "tuple": (out,), "output": Transformer2DModelOutput(sample=out), "list": list(out)}
        return forms[form]

    calls = []
    for number, count in enumerate(rows):
        x = torch.arange(3.0 * count).view(count, 3) + number
        calls.append(read({"x": x, "t": torch.tensor(float(number)), "added": {"y": 10 * x}}))
    assert len({call.signature for call in calls}) == 1
    parts = split_output(denoise(merge_calls(calls, ())), rows)
    for call, part in zip(calls, parts, strict=True):
        alone = denoise(call.arguments)
        assert type(part) is type(alone)
        assert torch.equal(rows_in(part), rows_in(alone))
        assert not rows_in(blank(part)).any()


def test_call_alone_goes_on_exactly_as_it_came() -> None:
    """So a request alone equals the stock pipeline by construction."""
    arguments = {"x": X, "t": torch.tensor(3), "ids": IDS}
    assert merge_calls([read(arguments)], ()) is arguments
    output = (X,)
    assert split_output(output, [2])[0] is output
