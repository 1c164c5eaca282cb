"""Stores: one contract for all of them, and the URL that chooses one."""

from collections.abc import AsyncIterator
from itertools import product
from pathlib import Path

import pytest

from t2i_cache.errors import StoreError, StoreFull, StoreUrlError
from t2i_cache.keys import LatentKey
from t2i_cache.stores import DirectoryStore, LatentStore, MemoryStore, open_store

KEY = LatentKey("s", "m", "e", 5)


@pytest.fixture(params=["memory", "directory", "redis"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LatentStore]:
    if request.param == "redis":
        valkey = request.getfixturevalue("valkey_session")
        valkey.command("FLUSHALL")
        made = open_store(valkey.url)
    else:
        made = MemoryStore() if request.param == "memory" else DirectoryStore(tmp_path / "made" / "on use")
    yield made
    await made.close()


async def listed(store: LatentStore) -> dict[LatentKey, int]:
    return {key: size async for key, size in store.scan()}


async def test_empty_store_has_nothing(store: LatentStore) -> None:
    """Before the first put (the folder is not there yet) reading, deleting and listing are no errors."""
    assert await store.get(KEY) is None
    await store.delete(KEY)
    assert await listed(store) == {}


@pytest.mark.parametrize("data", [b"", b"\0", bytes(range(256)) * 1000], ids=["empty", "NUL", "256 kB"])
async def test_bytes_come_back(store: LatentStore, data: bytes) -> None:
    """Any bytes, unchanged; reading does not use them up."""
    await store.put(KEY, data)
    assert await store.get(KEY) == data
    assert await store.get(KEY) == data
    assert await listed(store) == {KEY: len(data)}


async def test_put_replaces(store: LatentStore) -> None:
    """The second record takes the first one's place, also when it is shorter."""
    await store.put(KEY, b"long record")
    await store.put(KEY, b"short")
    assert await store.get(KEY) == b"short"
    assert await listed(store) == {KEY: 5}


async def test_every_part_of_key_counts(store: LatentStore) -> None:
    """Records that differ only in scope, model, entry or step never meet; all are listed with their sizes."""
    keys = [LatentKey(*parts, step) for *parts, step in product("ab", "ab", "ab", (1, 10))]
    for size, key in enumerate(keys):
        await store.put(key, bytes([size]) * size)
    assert [await store.get(key) for key in keys] == [bytes([size]) * size for size in range(len(keys))]
    assert await listed(store) == {key: size for size, key in enumerate(keys)}


async def test_delete_takes_one_record(store: LatentStore) -> None:
    """The other steps of the entry stay; deleting twice is fine; the key can be stored again."""
    other = LatentKey("s", "m", "e", 6)
    await store.put(KEY, b"five")
    await store.put(other, b"six")
    await store.delete(KEY)
    await store.delete(KEY)
    assert await store.get(KEY) is None
    assert await listed(store) == {other: 3}
    await store.delete(other)
    await store.put(KEY, b"again")
    assert await listed(store) == {KEY: 5}


async def test_store_may_change_while_it_is_listed(store: LatentStore) -> None:
    """Deleting what a scan names, as the start-up check does, neither fails nor skips records."""
    keys = {LatentKey("s", "m", "e", step) for step in range(1, 6)}
    for key in keys:
        await store.put(key, b"x")
    seen = set()
    async for key, _ in store.scan():
        seen.add(key)
        await store.delete(key)
    assert seen == keys
    assert await listed(store) == {}


async def test_memory_cap_refuses_and_keeps_what_is_there() -> None:
    """Past the cap: StoreFull, which callers know as a StoreError, and no record is lost for it."""
    store = MemoryStore(capacity_bytes=10)
    await store.put(KEY, b"123456")
    with pytest.raises(StoreFull):
        await store.put(LatentKey("s", "m", "f", 5), b"12345")
    with pytest.raises(StoreError):
        await store.put(KEY, b"12345678901")
    assert await store.get(KEY) == b"123456"
    assert await listed(store) == {KEY: 6}


async def test_memory_cap_counts_what_is_held_now() -> None:
    """Replacing counts once, exactly full is not over, and deleted bytes are free again."""
    store, other = MemoryStore(capacity_bytes=10), LatentKey("s", "m", "f", 5)
    for _ in range(5):
        await store.put(KEY, b"1234567890")
    await store.delete(KEY)
    await store.delete(KEY)
    await store.put(other, b"1234567890")
    with pytest.raises(StoreFull):
        await store.put(KEY, b"1")


async def test_file_url_is_a_shared_folder(tmp_path: Path) -> None:
    """Two stores of one URL see each other's records: gateway and workers of one machine; %20 is a blank."""
    url = f"file://{tmp_path}/a%20b"
    writer, reader = open_store(url), open_store(url)
    await writer.put(KEY, b"shared")
    assert await reader.get(KEY) == b"shared"
    assert (tmp_path / "a b").is_dir()
    for store in (writer, reader):
        await store.close()


async def test_memory_urls_share_nothing() -> None:
    """Each opening is a store of its own."""
    first, second = open_store("memory://"), open_store("memory://")
    assert isinstance(first, MemoryStore)
    await first.put(KEY, b"mine")
    assert await second.get(KEY) is None


@pytest.mark.parametrize(
    "url",
    {
        "unknown scheme": "s3://bucket/latents",
        "no scheme": "/var/cache/latents",
        "nothing at all": "",
        "file without a path": "file://",
        "two slashes: the first folder reads as a host": "file://var/cache",
        "a host": "file://localhost/var/cache",
    }.items(),
    ids=lambda item: item[0],
)
def test_unusable_url_is_refused(url: tuple[str, str]) -> None:
    """At once and as an error that both settings (ValueError) and the cache (StoreError) understand."""
    with pytest.raises(StoreUrlError) as refusal:
        open_store(url[1])
    assert isinstance(refusal.value, ValueError)
    assert "file:///" in str(refusal.value)
