"""The directory store among crashes, other processes, foreign files and a full or broken disk."""

import asyncio
import errno
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from t2i_cache.errors import StoreError, StoreFull, StoreUnavailable
from t2i_cache.keys import LatentKey
from t2i_cache.stores import DirectoryStore
from t2i_cache.stores.directory import STALE_AFTER_S, TEMPORARY

KEY = LatentKey("s", "m", "e", 5)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[DirectoryStore]:
    made = DirectoryStore(tmp_path / "root")
    yield made
    await made.close()


async def listed(store: DirectoryStore) -> dict[LatentKey, int]:
    return {key: size async for key, size in store.scan()}


def files_below(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def failing(number: int) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


async def test_concurrent_puts_never_show_torn_record(tmp_path: Path) -> None:
    """Two processes' stores write one key while a third reads: always one whole record, and no rubbish is left."""
    stores = [DirectoryStore(tmp_path) for _ in range(3)]
    records = [bytes([i]) * (100_000 + 50_000 * i) for i in range(8)]
    await stores[0].put(KEY, records[0])
    puts = [stores[i % 2].put(KEY, data) for _ in range(5) for i, data in enumerate(records)]
    seen = await asyncio.gather(*puts, *(stores[2].get(KEY) for _ in range(100)))
    assert all(data in records for data in seen[len(puts) :])
    assert await stores[0].get(KEY) in records
    assert files_below(tmp_path) == {"5.latent"}
    for each in stores:
        await each.close()


async def test_puts_survive_deletes_of_same_entry(tmp_path: Path) -> None:
    """A delete removes the emptied folder; a put at that moment makes it anew instead of failing."""
    stores = [DirectoryStore(tmp_path) for _ in range(2)]
    kept = [LatentKey("s", "m", "e", step) for step in range(100, 130)]
    for key in kept:
        await asyncio.gather(stores[1].delete(KEY), stores[0].put(key, b"kept"), stores[1].put(KEY, b"gone"))
        await stores[1].delete(KEY)
    assert await listed(stores[0]) == dict.fromkeys(kept, 4)
    for each in stores:
        await each.close()


async def test_folder_goes_with_last_latent(store: DirectoryStore, tmp_path: Path) -> None:
    """Evicted prompts leave no empty folders behind, but a folder with another latent stays."""
    await store.put(KEY, b"five")
    await store.put(LatentKey("s", "m", "e", 6), b"six")
    await store.delete(KEY)
    assert (tmp_path / "root/s/m/e").is_dir()
    await store.delete(LatentKey("s", "m", "e", 6))
    assert not (tmp_path / "root/s/m/e").exists()


async def test_others_cannot_read_latents(store: DirectoryStore, tmp_path: Path) -> None:
    """A latent shows its prompt's picture: file and folder are for their owner only."""
    await store.put(KEY, b"secret")
    entry = tmp_path / "root/s/m/e"
    assert entry.stat().st_mode & 0o077 == 0
    assert (entry / "5.latent").stat().st_mode & 0o077 == 0


async def test_only_stale_temporary_files_are_swept(store: DirectoryStore, tmp_path: Path) -> None:
    """A scan removes what a crash left long ago, not what another process is writing; neither counts as a latent."""
    await store.put(KEY, b"record")
    stale, fresh = (tmp_path / "root/s/m/e" / f"{TEMPORARY}{name}" for name in ("stale", "fresh"))
    for path in (stale, fresh):
        path.write_bytes(b"half")
    old = fresh.stat().st_mtime - STALE_AFTER_S - 60
    os.utime(stale, (old, old))
    assert await listed(store) == {KEY: 6}
    assert (stale.exists(), fresh.exists()) == (False, True)


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "s/m/notes.latent",
        "s/m/e/notes.latent",
        "s/m/e/5.latent.bak",
        "s/m/e/-1.latent",
        "s/m/e/99999999.latent",
        "s/m/e/.latent",
        "s/m/a name with blanks/5.latent",
        "s/m/e/deeper/5.latent",
        "lost+found/m/e/5.latent",
    ],
)
async def test_foreign_file_is_ignored(store: DirectoryStore, tmp_path: Path, name: str) -> None:
    """Not listed and not deleted: the folder may be shared with people and tools; old age changes nothing."""
    await store.put(KEY, b"record")
    path = tmp_path / "root" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"foreign")
    os.utime(path, (0, 0))
    assert await listed(store) == {KEY: 6}
    assert path.read_bytes() == b"foreign"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("at", ["opening", "writing", "renaming", "making the folder"])
async def test_full_disk_keeps_old_record(
    store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str, number: int
) -> None:
    """Wherever the space runs out: StoreFull, the old record stays readable, and no half file takes more space."""
    await store.put(KEY, b"old")
    targets = {"opening": (tempfile, "mkstemp"), "renaming": (os, "replace"), "making the folder": (Path, "mkdir")}
    with monkeypatch.context() as patch:
        if at == "writing":
            patch.setattr(os, "fdopen", full_files(number, os.fdopen))
        else:
            patch.setattr(*targets[at], failing(number))
        with pytest.raises(StoreFull):
            await store.put(KEY, b"new record")
    assert await store.get(KEY) == b"old"
    assert files_below(tmp_path) == {"5.latent"}
    await store.put(KEY, b"space again")
    assert await store.get(KEY) == b"space again"


def full_files(number: int, real: Callable[..., Any]) -> Callable[..., Any]:
    """Files on a full disk, as `os.fdopen` gives them: the first write fails."""

    class FullFile:
        def __init__(self, handle: int, mode: str) -> None:
            self._file = real(handle, mode)

        def __enter__(self) -> "FullFile":
            return self

        def __exit__(self, *_: object) -> None:
            self._file.close()

        def write(self, data: bytes) -> int:
            self._file.write(data[: len(data) // 2])
            raise OSError(number, os.strerror(number))

    return FullFile


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EIO])
async def test_unwritable_folder_is_unavailable(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A read-only or broken disk is a StoreError that is not mistaken for a full one; reading goes on."""
    await store.put(KEY, b"old")
    monkeypatch.setattr(tempfile, "mkstemp", failing(number))
    monkeypatch.setattr(Path, "unlink", failing(number))
    for call in (store.put(KEY, b"new"), store.delete(KEY)):
        with pytest.raises(StoreUnavailable):
            await call
    assert await store.get(KEY) == b"old"


async def test_unreadable_record_is_unavailable(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """An I/O error is told as such and not passed off as a missing record."""
    await store.put(KEY, b"old")
    monkeypatch.setattr(Path, "read_bytes", failing(errno.EIO))
    with pytest.raises(StoreUnavailable):
        await store.get(KEY)


async def test_root_that_cannot_be_made(tmp_path: Path) -> None:
    """Below a file no folder can be: puts raise StoreError, reading finds nothing, and nothing crashes."""
    (tmp_path / "file").write_bytes(b"")
    store = DirectoryStore(tmp_path / "file" / "root")
    with pytest.raises(StoreError):
        await store.put(KEY, b"x")
    assert await store.get(KEY) is None
    await store.delete(KEY)
    assert await listed(store) == {}
    await store.close()


async def test_root_that_vanishes(store: DirectoryStore, tmp_path: Path) -> None:
    """Someone clears the cache folder: the records are missing, and the next put makes the folder again."""
    await store.put(KEY, b"old")
    (tmp_path / "root").rename(tmp_path / "cleared")
    assert await store.get(KEY) is None
    await store.delete(KEY)
    await store.put(KEY, b"new")
    assert await store.get(KEY) == b"new"
