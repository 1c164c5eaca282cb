"""A store that one process has to itself: always under its capacity, within TTL and uses, also after a restart."""

import asyncio
import errno
import os
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from t2i_cache.errors import FollowerTooSlow, StoreFull, StoreUnavailable
from t2i_cache.keys import LatentKey
from t2i_cache.records import LatentRecord, encode_record
from t2i_cache.stores import BoundedStore, DirectoryStore, MemoryStore, StoreLimits
from t2i_cache.stores import directory as on_disk
from t2i_cache.stores.bounded.following import MAX_WAITING, LatentNews

MIB = 1 << 20
TTL_S, USES = 100.0, 3


class Clock:
    """Moved by the test."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@asynccontextmanager
async def opened(root: Path, clock: Clock, capacity_bytes: int = MIB, uses: int = USES) -> AsyncIterator[BoundedStore]:
    store = BoundedStore(DirectoryStore(root), StoreLimits(capacity_bytes, TTL_S, uses), clock)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def key_of(number: int, step: int = 6) -> LatentKey:
    return LatentKey(f"scope{number % 7}", f"model{number % 3}", f"entry{number:027d}", step)


def record_of(key: LatentKey, clock: Clock, floats: int = 1000) -> bytes:
    tensor = np.full(floats, key.step, np.float32).tobytes()
    return encode_record(LatentRecord(key, "float32", (floats,), tensor, np.ones(8, np.float32), clock.now_s))


def disk_bytes(root: Path) -> int:
    """As du and the kubelet count: the blocks of all files and folders."""
    names = [os.path.join(folder, name) for folder, inner, files in os.walk(root) for name in (*inner, *files)]
    return sum(os.lstat(name).st_blocks for name in (root, *names)) * 512


def files_below(root: Path) -> set[Path]:
    return {path for path in root.rglob("*") if not path.is_dir()}


def latents_below(root: Path) -> list[Path]:
    return sorted(root.rglob("*.latent"))


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the folder takes when a write is at its worst, the temporary file whole and the old one there, and after."""
    seen: list[int] = []
    real = os.replace

    def replace_watched(source: Any, target: Any) -> None:
        seen.append(disk_bytes(tmp_path))
        real(source, target)
        seen.append(disk_bytes(tmp_path))

    monkeypatch.setattr(on_disk.os, "replace", replace_watched)
    return seen


async def test_folder_stays_under_capacity_at_every_moment(tmp_path: Path, clock: Clock, watched: list[int]) -> None:
    """240 prompts of three latents each, and a restart among them: the disk never gives more than the capacity."""
    for prompts in (range(120), range(120, 240)):
        async with opened(tmp_path, clock) as store:
            assert disk_bytes(tmp_path) <= MIB
            for number in prompts:
                for step in (3, 6, 9):
                    await store.put(key_of(number, step), record_of(key_of(number, step), clock, 48 * 48 * 3))
            assert store.used_bytes >= disk_bytes(tmp_path)
    assert len(watched) == 2 * 3 * 240
    assert MIB // 2 < max(watched) <= MIB


async def test_latent_put_again_counts_beside_the_old_one(tmp_path: Path, clock: Clock, watched: list[int]) -> None:
    """While it is replaced, both files lie there; afterwards one counts."""
    async with opened(tmp_path, clock, 128 << 10) as store:
        for _ in range(20):
            await store.put(key_of(1), record_of(key_of(1), clock, 10_000))
        assert store.num_entries == 1
        assert store.used_bytes < 80_000
    assert max(watched) <= 128 << 10


async def test_least_useful_latents_go_first(tmp_path: Path, clock: Clock) -> None:
    """The pool's eviction policy: what is used stays, what nobody asked for goes."""
    async with opened(tmp_path, clock, 256 << 10, uses=1000) as store:
        await store.put(key_of(0), record_of(key_of(0), clock))
        for number in range(1, 60):
            clock.now_s += 1
            assert await store.get(key_of(0)) is not None
            await store.put(key_of(number), record_of(key_of(number), clock))
        assert key_of(0) in store
        assert key_of(1) not in store
        assert store.tally.gone["Capacity"] > 20


async def test_latent_that_can_never_fit_takes_nothing_with_it(tmp_path: Path, clock: Clock) -> None:
    """It is refused before anything goes."""
    async with opened(tmp_path, clock, 64 << 10) as store:
        await store.put(key_of(1), record_of(key_of(1), clock))
        with pytest.raises(StoreFull):
            await store.put(key_of(2), record_of(key_of(2), clock, 100_000))
        assert key_of(1) in store


async def test_latent_is_not_read_past_its_time(tmp_path: Path, clock: Clock) -> None:
    """At once, and the sweep takes it off the disk; a restart changes nothing."""
    async with opened(tmp_path, clock) as store:
        await store.put(key_of(1), record_of(key_of(1), clock))
        clock.now_s += TTL_S - 1
        await store.put(key_of(2), record_of(key_of(2), clock))
        assert await store.get(key_of(1)) is not None
        clock.now_s += 2
        assert await store.get(key_of(1)) is None
        await store.sweep()
        assert len(latents_below(tmp_path)) == 1
    clock.now_s += TTL_S
    async with opened(tmp_path, clock) as store:
        assert store.num_entries == 0
    assert files_below(tmp_path) == set()


@pytest.mark.parametrize("restart", [False, True])
async def test_latent_is_not_read_more_often_than_allowed(tmp_path: Path, clock: Clock, restart: bool) -> None:
    """Uses of before a restart count, also when the process was killed: they are on the disk with each use."""
    store = BoundedStore(DirectoryStore(tmp_path), StoreLimits(MIB, TTL_S, USES), clock)
    await store.open()
    await store.put(key_of(1), record_of(key_of(1), clock))
    for _ in range(USES - 1):
        assert await store.get(key_of(1)) is not None
    if restart:  # without closing the first, as after a crash
        store = BoundedStore(DirectoryStore(tmp_path), StoreLimits(MIB, TTL_S, USES), clock)
        await store.open()
    assert await store.get(key_of(1)) is not None
    assert await store.get(key_of(1)) is None
    assert latents_below(tmp_path) == []
    assert store.tally.gone["WornOut"] == 1


async def test_restart_takes_over_sound_latents_only(tmp_path: Path, clock: Clock) -> None:
    """Damaged, misplaced and foreign files, temporary ones and empty folders go, whatever they are called."""
    root = tmp_path / "own"
    async with opened(root, clock) as store:
        for number in range(4):
            await store.put(key_of(number), record_of(key_of(number), clock))
    paths = [next(root.rglob(f"{key_of(number).entry_id}/*")) for number in range(4)]
    paths[1].write_bytes(paths[1].read_bytes()[:-20])
    shutil.copy(paths[0], paths[2])
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "5.latent").write_bytes(b"not ours")
    for name in (
        "README",
        "scope0/notes",
        "scope0/model0/entry/deeper/5.latent",
        "s/m/e/05.latent",
        "s/m/e/.tmp-crash",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x" * 5000)
    (root / "empty" / "folder").mkdir(parents=True)
    (root / "link").symlink_to(outside)
    async with opened(root, clock) as store:
        assert [number for number in range(4) if key_of(number) in store] == [0, 3]
        assert await store.get(key_of(3)) == record_of(key_of(3), clock)
        assert store.used_bytes >= disk_bytes(root)
    assert files_below(root) == {paths[0], paths[3]}
    assert not (root / "empty").exists()
    assert (outside / "5.latent").exists()


async def test_restart_with_less_capacity_gives_up_the_rest(tmp_path: Path, clock: Clock) -> None:
    """Before anything is served."""
    async with opened(tmp_path, clock) as store:
        for number in range(60):
            await store.put(key_of(number), record_of(key_of(number), clock))
    async with opened(tmp_path, clock, 200 << 10) as store:
        assert disk_bytes(tmp_path) <= 200 << 10
        assert store.num_entries > 5


class SmallDisk:
    """A disk with room for so many latents, whatever the capacity says: as `os.replace` meets it."""

    def __init__(self, root: Path, latents: int, real: Callable[..., None]) -> None:
        self._root = root
        self._latents = latents
        self._real = real

    def __call__(self, source: Any, target: Any) -> None:
        if len(list(self._root.rglob("*.latent"))) >= self._latents:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._real(source, target)


async def test_full_disk_makes_room(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each latent is kept in the end, in place of others, and the times are counted."""
    monkeypatch.setattr(on_disk.os, "replace", SmallDisk(tmp_path, 10, os.replace))
    async with opened(tmp_path, clock) as store:
        for number in range(30):
            clock.now_s += 1
            await store.put(key_of(number), record_of(key_of(number), clock))
            assert key_of(number) in store
        assert 3 <= store.tally.times_full <= 20
        assert store.used_bytes >= disk_bytes(tmp_path)


async def test_disk_full_of_others_is_told_and_counted(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tried twice, then `StoreFull`; no half file stays, and nothing is counted that is not there."""
    monkeypatch.setattr(on_disk.os, "replace", SmallDisk(tmp_path, 0, os.replace))
    async with opened(tmp_path, clock) as store:
        with pytest.raises(StoreFull):
            await store.put(key_of(1), record_of(key_of(1), clock))
        assert (store.tally.times_full, store.num_entries) == (1, 0)
    assert files_below(tmp_path) == set()


async def test_latent_that_cannot_be_deleted_still_counts(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the folder would grow on."""
    async with opened(tmp_path, clock, 64 << 10) as store:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", failing(errno.EIO))
            with pytest.raises(StoreUnavailable):
                await fill(store, clock, 20)
        assert disk_bytes(tmp_path) <= store.used_bytes <= 64 << 10
        await store.put(key_of(30), record_of(key_of(30), clock))
        assert key_of(30) in store


async def fill(store: BoundedStore, clock: Clock, prompts: int) -> None:
    for number in range(prompts):
        await store.put(key_of(number), record_of(key_of(number), clock))


def failing(number: int) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


async def test_write_whose_caller_gives_up_is_counted(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file comes into being in a thread; nobody waits for it, and it is in the books."""
    began, go_on = asyncio.Event(), asyncio.Event()
    real = DirectoryStore.put

    async def slow_put(self: DirectoryStore, key: LatentKey, data: bytes) -> None:
        began.set()
        await go_on.wait()
        await real(self, key, data)

    monkeypatch.setattr(DirectoryStore, "put", slow_put)
    async with opened(tmp_path, clock) as store:
        writing = asyncio.create_task(store.put(key_of(1), record_of(key_of(1), clock)))
        await began.wait()
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        go_on.set()
        await store.put(key_of(2), record_of(key_of(2), clock))
        assert key_of(1) in store
        assert store.used_bytes >= disk_bytes(tmp_path)


async def test_memory_is_bounded_the_same_way(clock: Clock) -> None:
    """A worker whose latents lie in its memory has no other bound."""
    store = BoundedStore(MemoryStore(), StoreLimits(64 << 10, TTL_S, USES), clock)
    await store.open()
    for number in range(40):
        await store.put(key_of(number), record_of(key_of(number), clock))
    assert 8 <= store.num_entries <= 16
    assert store.used_bytes <= 64 << 10
    await store.close()


async def news(stream: AsyncGenerator[LatentNews, None]) -> LatentNews:
    return await anext(stream)


async def test_followers_hear_what_is_there_and_then_each_change(tmp_path: Path, clock: Clock) -> None:
    """In order, with embeddings; then a sign of life."""
    async with opened(tmp_path, clock) as store:
        await store.put(key_of(1), record_of(key_of(1), clock))
        stream = store.follow(every_s=0.01)
        first = await news(stream)
        assert [held.record.key.entry_id for held in first.held] == [key_of(1).entry_id]
        assert np.array_equal(first.held[0].record.embedding, np.ones(8, np.float32))
        assert (await news(stream)).complete
        await store.put(key_of(2), record_of(key_of(2), clock))
        await store.delete(key_of(1))
        await store.put(key_of(1), record_of(key_of(1), clock))
        second, third = await news(stream), await news(stream)
        assert [held.record.key for held in second.held] == [key_of(2)]
        assert [(gone.key, gone.reason) for gone in second.gone] == [(key_of(1), "Damaged")]
        assert [held.record.key for held in third.held] == [key_of(1)]
        assert await news(stream) == LatentNews()
        await stream.aclose()


async def test_follower_that_does_not_keep_up_is_let_go(tmp_path: Path, clock: Clock) -> None:
    """What waits for it is bounded; it begins anew."""
    async with opened(tmp_path, clock) as store:
        await store.put(key_of(1), record_of(key_of(1), clock))
        stream = store.follow(every_s=1.0)
        await news(stream)
        held = store._ledger.held(key_of(1))
        assert held is not None
        for _ in range(MAX_WAITING + 1):
            store._followers.tell(held)
        assert (await news(stream)).complete
        with pytest.raises(FollowerTooSlow):
            await news(stream)
