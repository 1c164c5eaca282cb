"""Records: what was stored comes back bit for bit, and anything else is an error, never a wrong latent."""

import hashlib
import json
import struct
from math import inf, nan, prod
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from t2i_cache.errors import RecordCorrupt, RecordError, RecordMismatch, RecordTruncated
from t2i_cache.keys import LatentKey
from t2i_cache.records import MAX_HEADER_BYTES, LatentRecord, decode_record, encode_record, read_any

KEY = LatentKey("scope", "model", "entry", 5)
ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
INFINITIES = {"float32": struct.pack("<f", inf), "float16": struct.pack("<e", inf), "bfloat16": b"\x80\x7f"}
NANS = {"float32": struct.pack("<f", nan), "float16": struct.pack("<e", nan), "bfloat16": b"\xc0\x7f"}
HEADER = {
    "scope": "scope",
    "model": "model",
    "entry": "entry",
    "step": 5,
    "dtype": "float16",
    "shape": [2],
    "embedding": 1,
    "created": 7.0,
}
BODY = struct.pack("<fee", 0.5, 1.0, 2.0)


def record(dtype: str = "float16", tensor: bytes = bytes(8), shape: tuple[int, ...] = (2, 2)) -> LatentRecord:
    return LatentRecord(KEY, dtype, shape, tensor, np.array([0.5, -1.0, 2.0], np.float32), 1_700_000_000.25)


def framed(header: Any, body: bytes = BODY, length: int | None = None) -> bytes:
    """A record with a right checksum, whatever its header says."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    data = struct.pack("<4sHI", b"T2IL", 1, len(text) if length is None else length) + text + body
    return data + hashlib.blake2b(data, digest_size=16).digest()


@st.composite
def finite_records(draw: st.DrawFn) -> LatentRecord:
    """Random finite bit patterns: an exponent of all ones loses a bit."""
    dtype = draw(st.sampled_from(sorted(ITEM_BYTES)))
    shape = tuple(draw(st.lists(st.integers(1, 4), max_size=4)))
    raw = draw(st.binary(min_size=prod(shape) * ITEM_BYTES[dtype], max_size=prod(shape) * ITEM_BYTES[dtype]))
    bits = np.frombuffer(raw, "<u4" if dtype == "float32" else "<u2").copy()
    exponent = {"float32": 0x7F800000, "float16": 0x7C00, "bfloat16": 0x7F80}[dtype]
    bits[(bits & exponent) == exponent] &= bits.dtype.type(~(exponent & -exponent) & (2 ** (8 * bits.itemsize) - 1))
    words = draw(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=6))
    part = st.text("abcXYZ019_-", min_size=1, max_size=128)
    key = LatentKey(draw(part), draw(part), draw(part), draw(st.integers(0, 1_000_000)))
    created_s = draw(st.floats(0, 1e12))
    return LatentRecord(key, dtype, shape, bits.tobytes(), np.array(words, np.float32), created_s)


@settings(max_examples=60, deadline=None)
@given(stored=finite_records())
def test_round_trip_keeps_every_bit(stored: LatentRecord) -> None:
    """Key, shape, tensor bits, embedding bits and time survive, for each dtype."""
    for back in (decode_record(encode_record(stored), stored.key), read_any(encode_record(stored))):
        assert (back.key, back.dtype, back.shape) == (stored.key, stored.dtype, stored.shape)
        assert back.tensor == stored.tensor
        assert back.embedding.tobytes() == stored.embedding.tobytes()
        assert back.created_s == stored.created_s


def test_every_bit_flip_is_found_out() -> None:
    """No single flipped bit, wherever it lies, yields a record or an error of another kind."""
    data = encode_record(record())
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(RecordError):
            decode_record(bytes(flipped), KEY)


@pytest.mark.parametrize("dtype", sorted(ITEM_BYTES))
def test_every_truncation_is_found_out(dtype: str) -> None:
    """A file cut at any length is refused as truncated; so is trailing rubbish, as corrupt."""
    data = encode_record(record(dtype, bytes(4 * ITEM_BYTES[dtype])))
    for length in range(len(data)):
        with pytest.raises(RecordTruncated):
            decode_record(data[:length], KEY)
    with pytest.raises(RecordCorrupt):
        decode_record(data + b"\0", KEY)


@pytest.mark.parametrize(
    "expected",
    [
        LatentKey("other", "model", "entry", 5),
        LatentKey("scope", "other", "entry", 5),
        LatentKey("scope", "model", "other", 5),
        LatentKey("scope", "model", "entry", 6),
    ],
    ids=["another scope", "another model", "another entry", "another step"],
)
def test_record_in_anothers_place_is_refused(expected: LatentKey) -> None:
    """A sound record moved under another key is a mismatch, so no tenant or model gets a foreign latent."""
    with pytest.raises(RecordMismatch):
        decode_record(encode_record(record()), expected)


@pytest.mark.parametrize("dtype", sorted(ITEM_BYTES))
@pytest.mark.parametrize("values", [INFINITIES, NANS], ids=["infinity", "NaN"])
def test_tensor_that_is_not_finite_is_refused(dtype: str, values: dict[str, bytes]) -> None:
    """One bad value anywhere would spoil the whole image; the sign does not matter."""
    size = ITEM_BYTES[dtype]
    for place in range(4):
        for sign in (0, 0x80):
            value = values[dtype][:-1] + bytes([values[dtype][-1] | sign])
            tensor = bytes(place * size) + value + bytes((3 - place) * size)
            with pytest.raises(RecordCorrupt, match="not finite"):
                decode_record(encode_record(record(dtype, tensor)), KEY)


@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_embedding_that_is_not_finite_is_refused(value: float) -> None:
    """It would poison the index that is rebuilt from it."""
    bad = LatentRecord(KEY, "float16", (1,), bytes(2), np.array([1.0, value], np.float32), 0.0)
    with pytest.raises(RecordCorrupt, match="not finite"):
        read_any(encode_record(bad))


def test_hand_made_record_is_read() -> None:
    """The layout is as documented; without this the hostile headers below would prove nothing."""
    assert decode_record(framed(HEADER), KEY).tensor == BODY[4:]


@pytest.mark.parametrize(
    "change",
    {
        "a dimension is negative": {"shape": [-2]},
        "two negative dimensions multiply to the right size": {"shape": [-1, -2]},
        "a dimension is zero": {"shape": [2, 0]},
        "the tensor claims exabytes": {"shape": [1 << 31, 1 << 31]},
        "the tensor claims a little over the cap": {"shape": [(1 << 29) + 1]},
        "the tensor claims more than is there": {"shape": [3]},
        "the tensor claims less than is there": {"shape": [1]},
        "the embedding is negative": {"embedding": -1},
        "the embedding eats the tensor": {"embedding": 1 << 40},
        "the sizes are exchanged between tensor and rubbish": {"embedding": 2},
        "the dtype is unknown": {"dtype": "int8"},
        "the dtype is a list": {"dtype": ["float16"]},
        "the shape is a number": {"shape": 2},
        "the shape holds words": {"shape": ["x"]},
        "the step is null": {"step": None},
        "the step is out of range": {"step": -1},
        "an id climbs": {"entry": "../x"},
        "an id is a number": {"scope": 7},
        "the time is a word": {"created": "now"},
    }.items(),
    ids=lambda item: item[0],
)
def test_hostile_header_is_refused(change: tuple[str, dict[str, Any]]) -> None:
    """Sizes and fields are checked although the checksum is right; nothing is allocated for a claim."""
    with pytest.raises(RecordError):
        read_any(framed(HEADER | change[1]))


@pytest.mark.parametrize("field", sorted(HEADER))
def test_header_without_field_is_refused(field: str) -> None:
    """No field has a silent default."""
    with pytest.raises(RecordCorrupt):
        read_any(framed({name: value for name, value in HEADER.items() if name != field}))


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=200))
@example(framed(b"[]"))
@example(framed(b"\xff\xfe"))
@example(framed(b"{"))
@example(framed(HEADER, length=MAX_HEADER_BYTES + 1))
@example(framed(json.dumps(HEADER).encode() + b" " * MAX_HEADER_BYTES))
@example(framed(HEADER, length=0xFFFFFFFF))
def test_rubbish_is_never_a_record(data: bytes) -> None:
    """Any bytes at all give a RecordError and nothing else."""
    for rubbish in (data, b"T2IL" + data, struct.pack("<4sHI", b"T2IL", 1, len(data) // 2) + data):
        with pytest.raises(RecordError):
            read_any(rubbish)
