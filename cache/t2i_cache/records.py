"""Records: one latent as bytes, self-describing and checked.

    magic "T2IL" | version u16 | header length u32 | header (JSON) | embedding (float32 LE) | tensor | blake2b-128

The checksum covers everything before it. The header names the whole key, so a record put in another's place is found
out. The embedding lies beside the tensor, so an index can be rebuilt from a store alone. No pickle: sizes are bounded
and checked against the header before anything is read.
"""

import hashlib
import json
import struct
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from t2i_cache.errors import RecordCorrupt, RecordMismatch, RecordTruncated
from t2i_cache.keys import LatentKey

MAGIC = b"T2IL"
VERSION = 1
MAX_HEADER_BYTES = 4096
MAX_TENSOR_BYTES = 1 << 30
_PREFIX = struct.Struct("<4sHI")
_CHECKSUM_BYTES = 16
_ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True, slots=True)
class LatentRecord:
    """One latent. `tensor` is raw little-endian bytes of `dtype` (float32, float16 or bfloat16) and `shape`.

    `model_digest` is of the weights; it is in the key's fingerprint too, and here in clear, so that people can purge
    what one model left. Empty in records of before.
    """

    key: LatentKey
    dtype: str
    shape: tuple[int, ...]
    tensor: bytes
    embedding: npt.NDArray[np.float32]
    created_s: float
    model_digest: str = ""


def encode_record(record: LatentRecord) -> bytes:
    """The bytes to store; `decode_record` gives the record back."""
    embedding = np.ascontiguousarray(record.embedding, dtype="<f4")
    header = {
        "scope": record.key.scope,
        "model": record.key.model,
        "entry": record.key.entry_id,
        "step": record.key.step,
        "dtype": record.dtype,
        "shape": list(record.shape),
        "embedding": int(embedding.size),
        "created": record.created_s,
        "digest": record.model_digest,
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    body = _PREFIX.pack(MAGIC, VERSION, len(text)) + text + embedding.tobytes() + record.tensor
    return body + _checksum(body)


def decode_record(data: bytes, expected: LatentKey) -> LatentRecord:
    """Check and read a record.

    Raises:
        RecordTruncated, RecordCorrupt, RecordMismatch: see `errors`.
    """
    header, start = _read_header(data)
    record = _read_body(data, header, start)
    if record.key != expected:
        raise RecordMismatch("the record belongs to another key")
    return record


def read_any(data: bytes) -> LatentRecord:
    """As `decode_record`, for whoever scans a store and takes the key from the record."""
    header, start = _read_header(data)
    return _read_body(data, header, start)


def peek(data: bytes) -> tuple[npt.NDArray[np.float32], str]:
    """Embedding and model digest, for a store that lists its records; nothing else is looked at or checked.

    Raises:
        RecordTruncated, RecordCorrupt: see `errors`.
    """
    header, start = _read_header(data)
    try:
        count, digest = int(header["embedding"]), str(header.get("digest", ""))
        return np.frombuffer(data, dtype="<f4", count=count, offset=start), digest
    except (KeyError, TypeError, ValueError) as error:
        raise RecordCorrupt("the header lacks a field") from error


def _read_header(data: bytes) -> tuple[dict[str, Any], int]:
    if len(data) < _PREFIX.size + _CHECKSUM_BYTES:
        raise RecordTruncated(f"{len(data)} bytes are fewer than any record has")
    magic, version, length = _PREFIX.unpack_from(data)
    if magic != MAGIC or version != VERSION or length > MAX_HEADER_BYTES:
        raise RecordCorrupt("not a latent record of this version")
    start = _PREFIX.size + length
    if len(data) < start + _CHECKSUM_BYTES:
        raise RecordTruncated("the header is cut off")
    try:
        header = json.loads(data[_PREFIX.size : start])
    except ValueError as error:
        raise RecordCorrupt("the header is not readable") from error
    if not isinstance(header, dict):
        raise RecordCorrupt("the header is not a mapping")
    return header, start


def _read_body(data: bytes, header: dict[str, Any], start: int) -> LatentRecord:
    try:
        key = LatentKey(header["scope"], header["model"], header["entry"], int(header["step"]))
        shape = tuple(int(size) for size in header["shape"])
        tensor_bytes = prod(shape) * _ITEM_BYTES[header["dtype"]]
        embedding_bytes = 4 * int(header["embedding"])
        created_s = float(header["created"])
    except (KeyError, TypeError, ValueError) as error:
        raise RecordCorrupt("the header lacks a field") from error
    if min(shape, default=1) < 1 or embedding_bytes < 0 or tensor_bytes > MAX_TENSOR_BYTES:
        raise RecordCorrupt("the header's sizes are out of range")
    end = start + embedding_bytes + tensor_bytes
    if len(data) < end + _CHECKSUM_BYTES:
        raise RecordTruncated(f"{len(data)} bytes of {end + _CHECKSUM_BYTES}")
    if len(data) > end + _CHECKSUM_BYTES or data[end:] != _checksum(data[:end]):
        raise RecordCorrupt("the checksum does not match")
    middle = start + embedding_bytes
    embedding = np.frombuffer(data, dtype="<f4", count=embedding_bytes // 4, offset=start).astype(np.float32)
    tensor = data[middle:end]
    if not (_is_finite(tensor, header["dtype"]) and np.isfinite(embedding).all()):
        raise RecordCorrupt("values are not finite")
    return LatentRecord(key, header["dtype"], shape, tensor, embedding, created_s, str(header.get("digest", "")))


def _is_finite(tensor: bytes, dtype: str) -> bool:
    if dtype == "bfloat16":  # all eight exponent bits set: infinity or NaN; numpy has no bfloat16
        return not bool(((np.frombuffer(tensor, "<u2") & 0x7F80) == 0x7F80).any())
    return bool(np.isfinite(np.frombuffer(tensor, "<f4" if dtype == "float32" else "<f2")).all())


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECKSUM_BYTES).digest()
