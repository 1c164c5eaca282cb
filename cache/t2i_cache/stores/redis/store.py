"""The store: each call a script or a command, within a limit, its errors translated."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError, RedisError

from t2i_cache.errors import RecordError, StoreFull, StoreUnavailable
from t2i_cache.keys import EntryName, LatentKey, parse_key
from t2i_cache.records import peek
from t2i_cache.stores.health import StoreHealth, StoreReason
from t2i_cache.stores.protocol import StoreLimits
from t2i_cache.stores.redis.circuit_breaker import CircuitBreaker
from t2i_cache.stores.redis.explaining import Explained, explain
from t2i_cache.stores.redis.scripts import NAMES, read_script

T = TypeVar("T")
CALL_LIMIT_S = 2.0  # of any call; who needs a latent at once sets a shorter limit around it
PAGE = 500
FREED_WHEN_FULL = (2, 8, 32)  # latents' worth of bytes to free, try by try: the server counts its buffers, too


@dataclass(frozen=True, slots=True)
class Usage:
    """What the store holds of this pool. `epoch` changes when it was lost, `seq` numbers its last change."""

    epoch: str
    seq: int
    used_bytes: int
    items: int
    entries: int
    marked: int


@dataclass(frozen=True, slots=True)
class StoredItem:
    """One latent as the store knows it."""

    step: int
    size_bytes: int
    uses: int
    age_s: float


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """One prompt's latents. `embedding` is float32, empty if its records had none."""

    scope: str
    model: str
    entry_id: str
    embedding: npt.NDArray[np.float32]
    model_digest: str
    items: tuple[StoredItem, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """One event of the stream, numbered without gaps. `kind` is `+` stored (value: bytes), `u` used (value: uses) or
    `-` dropped (value: reason); `member` is a key's text."""

    change_id: str
    number: int
    kind: str
    member: str
    value: str


class RedisStore:
    """`pool` separates what pools keep in one server."""

    def __init__(self, client: "Redis", pool: str, limits: StoreLimits) -> None:
        self.limits = limits
        self.health = StoreHealth()
        self.prefix = key_prefix(pool)
        self._client = client
        self._scripts = {name: client.register_script(read_script(name)) for name in NAMES}
        self._resting, self._last_failure = CircuitBreaker(), ""

    async def get(self, key: LatentKey) -> bytes | None:
        found: bytes | None = await self._command("GET", f"{self.prefix}l:{key.text}")
        return found

    async def put(self, key: LatentKey, data: bytes, age_s: float = 0.0) -> None:
        """Makes room by the lowest scores; `age_s` counts against the TTL.

        Raises:
            StoreFull: larger than the pool's cap, or the server has no memory left even after an eviction.
        """
        embedding, digest = _facts(data)
        limits = self.limits
        arguments = (
            *(key.text, data, embedding, digest, limits.capacity_bytes, max(1, round(1e3 * limits.ttl_s))),
            *(secrets.token_hex(8), round(1e3 * max(0.0, age_s))),
        )
        for freed in FREED_WHEN_FULL:
            try:
                stored = await self._run("put", *arguments)
                break
            except StoreFull:
                await self._run("evict", freed * len(data))
        else:
            stored = await self._run("put", *arguments)
        if not stored:
            raise StoreFull(f"one latent of {len(data)} bytes is more than the pool may keep")
        self.health.served(stored=True)

    async def delete(self, key: LatentKey) -> None:
        await self.drop([key], "Damaged")

    async def drop(self, keys: Iterable[LatentKey], reason: str) -> None:
        """Remove several; the reason goes to everybody who follows."""
        members = [key.text for key in keys]
        if members:
            await self._run("drop", reason, *members)

    async def count_use(self, key: LatentKey) -> int:
        """A request started from this latent. Its uses; past the cap it is dropped; 0 = it is not there."""
        return int(await self._run("use", key.text, self.limits.max_reuses))

    async def expire(self, most: int = PAGE) -> int:
        """Drop latents past their TTL, oldest first; how many went. (They can't be read from that moment on anyway.)"""
        return int(await self._run("expire", round(1e3 * self.limits.ttl_s), most))

    async def mark(self, keys: Sequence[LatentKey]) -> None:
        """Let these go first, least worth first, when room is needed; replaces earlier marks."""
        await self._run("mark", *(key.text for key in keys))

    async def purge(self, scope: str = "", model_digest: str = "") -> int:
        """Drop all of a scope, of a model's weights, of both, or (both empty) of the pool; how many latents went."""
        cursor, dropped = "0", 0
        while True:
            page = await self._run("purge", cursor, PAGE, scope, model_digest)
            cursor, dropped = page[0].decode(), dropped + int(page[1])
            if cursor == "0":
                return dropped

    async def usage(self) -> Usage:
        """What is held now; all zero when nothing is."""
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.hmget(f"{self.prefix}meta", ["epoch", "seq", "bytes", "items"])
            pipe.scard(f"{self.prefix}entries")
            pipe.zcount(f"{self.prefix}worth", "-inf", "(0")
            (epoch, *numbers), entries, marked = await self._call(pipe.execute())
        seq, used, items = (int(number or 0) for number in numbers)
        return Usage((epoch or b"").decode(), seq, used, items, int(entries), int(marked))

    async def pages(self, size: int = PAGE) -> AsyncIterator[list[StoredEntry]]:
        """All entries, some at a time; what changes meanwhile may or may not be among them."""
        cursor = "0"
        while True:
            found = await self._run("page", cursor, size)
            yield [_entry(*found[at : at + 4]) for at in range(1, len(found), 4)]
            cursor = found[0].decode()
            if cursor == "0":
                return

    async def entries(self, names: Sequence[EntryName]) -> list[bytes]:
        """The embeddings (float16) of these entries; empty where there is none."""
        async with self._client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hget(f"{self.prefix}e:{':'.join(name)}", "v")
            return [bytes(found or b"") for found in await self._call(pipe.execute())]

    async def read_changes(self, after: str, block_s: float, most: int = PAGE) -> list[Change]:
        """Changes after an id of the stream, waiting up to `block_s` for the first."""
        words = ("COUNT", most, "BLOCK", max(1, round(1e3 * block_s)), "STREAMS", f"{self.prefix}changes", after)
        reply = await self._command("XREAD", *words, limit_s=block_s + CALL_LIMIT_S)
        return [_change(*one) for one in reply[0][1]] if reply else []

    async def last_change(self) -> Change:
        """The newest change; one with the id and number 0 when there is none."""
        reply = await self._command("XREVRANGE", f"{self.prefix}changes", "+", "-", "COUNT", 1)
        return _change(*reply[0]) if reply else Change("0", 0, "", "", "")

    async def scan(self) -> AsyncIterator[tuple[LatentKey, int]]:
        async for page in self.pages():
            for entry in page:
                for item in entry.items:
                    yield LatentKey(entry.scope, entry.model, entry.entry_id, item.step), item.size_bytes

    async def check(self) -> None:
        """A new connection finds out whether the server can be used (`greeting`)."""
        await self._command("GET", f"{self.prefix}probe")

    async def close(self) -> None:
        await self._client.aclose()
        await self._client.connection_pool.disconnect()

    async def _command(self, *words: str | int, limit_s: float = CALL_LIMIT_S) -> Any:
        call: Awaitable[Any] = self._client.execute_command(*words)  # type: ignore[no-untyped-call] # as in its stubs
        return await self._call(call, limit_s)

    async def _run(self, name: str, *arguments: str | bytes | float) -> Any:
        return await self._call(self._scripts[name](keys=[self.prefix], args=list(arguments)))

    async def _call(self, call: Awaitable[T], limit_s: float = CALL_LIMIT_S) -> T:
        """Wait for an answer within the limit.

        Raises:
            StoreFull, StoreUnavailable: see `errors`.
        """
        if self._resting.rests(time.monotonic()):
            _close(call)
            raise StoreUnavailable(f"latent store: left alone for a moment after failures: {self._last_failure}")
        task = asyncio.current_task()
        cancels = task.cancelling() if task is not None else 0
        async with self._watched():
            try:
                async with asyncio.timeout(limit_s):
                    answer = await call
            except OutOfMemoryError as error:
                raise StoreFull("latent store: the server's maxmemory is reached") from error
            except (RedisError, OSError, TimeoutError) as error:
                raise await self._unavailable(explain(error)) from error
            finally:
                # the client may swallow a cancel that comes while it takes a connection; whoever cancelled waits for us
                if task is not None and task.cancelling() > cancels:
                    raise asyncio.CancelledError
            return answer

    async def _unavailable(self, explained: Explained) -> StoreUnavailable:
        self._last_failure = explained.sentence
        self.health.failed(explained.reason, explained.sentence)
        if explained.elsewhere:
            await self._let_connections_go()
        return StoreUnavailable(f"latent store: {explained.sentence}")

    async def _let_connections_go(self) -> None:
        """The name may lead to another server by now: the next call asks it anew. Calls under way end first."""
        pool = self._client.connection_pool
        await pool.update_active_connections_for_reconnect()  # type: ignore[no-untyped-call] # as in its stubs
        await pool.disconnect(inuse_connections=False)

    @asynccontextmanager
    async def _watched(self) -> AsyncIterator[None]:
        """Failures and calls that somebody gave up count against the server; a full one answers."""
        try:
            yield
        except (StoreUnavailable, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError):
                self._last_failure = "no answer before its callers gave up"
                self.health.failed(StoreReason.NO_ANSWER, self._last_failure)
            self._resting = self._resting.after_failure(time.monotonic())
            raise
        except StoreFull as error:
            self.health.failed(StoreReason.FULL, str(error))
            self._resting = self._resting.after_success()
            raise
        self.health.served()
        self._resting = self._resting.after_success()


def key_prefix(pool: str) -> str:
    """What the keys of a pool begin with. The braces keep them on one server of whatever shards by key."""
    return f"t2i:{{{pool}}}:"


def _close(call: Awaitable[Any]) -> None:
    close = getattr(call, "close", None)  # a coroutine that is never awaited must be told
    if close is not None:
        close()


def _facts(data: bytes) -> tuple[bytes, str]:
    """The embedding as float16 and the model's digest; empty for bytes that are no record."""
    try:
        embedding, digest = peek(data)
    except RecordError:
        return b"", ""
    return np.clip(embedding, -60000.0, 60000.0).astype("<f2").tobytes(), digest


def _entry(name: bytes, embedding: bytes, digest: bytes, items: bytes) -> StoredEntry:
    key = parse_key(f"{name.decode()}:0")
    parts = [part.split() for part in items.decode().split(";") if part]
    found = tuple(StoredItem(int(s), int(size), int(uses), float(age) / 1e3) for s, size, uses, age in parts)
    return StoredEntry(*key.entry, to_embedding(embedding), digest.decode(), found)


def to_embedding(stored: bytes) -> npt.NDArray[np.float32]:
    """Float32 from the store's float16."""
    return np.frombuffer(stored, "<f2").astype(np.float32)


def _change(change_id: bytes, fields: Mapping[bytes, bytes]) -> Change:
    texts = (fields[name].decode() for name in (b"op", b"k", b"x"))
    return Change(change_id.decode(), int(fields[b"n"]), *texts)
