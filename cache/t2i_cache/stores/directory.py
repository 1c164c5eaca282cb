"""Latents as files: the embedded default, shared by the processes of one machine.

    ROOT/scope/model/entry_id/step.latent

A record is written to a temporary name in its folder and renamed, so readers never see half of it; temporary files a
crash left behind are removed when the store is scanned. Blocking calls run in a small thread pool of the store's own.

A process that has the folder to itself (`bounded`) keeps a latent's uses in its file's time: the seconds say when it
was last used, the nanoseconds how often. So counts survive a crash, one system call each, without a file of their own.
"""

import asyncio
import errno
import logging
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from t2i_cache.errors import StoreError, StoreFull, StoreUnavailable
from t2i_cache.keys import LatentKey
from t2i_cache.stores.health import StoreHealth, StoreReason
from t2i_cache.stores.protocol import FoundLatent

log = logging.getLogger(__name__)
T = TypeVar("T")
SUFFIX = ".latent"
TEMPORARY = ".tmp-"
STALE_AFTER_S = 3600.0
LEAST_BLOCK_BYTES = 4096
PUT_TRIES = 5
_FULL = {errno.ENOSPC, errno.EDQUOT}
_NS = 1_000_000_000


class DirectoryStore:
    """The folder is made on first use, readable by its owner only."""

    def __init__(self, root: Path, threads: int = 4) -> None:
        self.health = StoreHealth()
        self._root = root
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="latent-store")

    async def get(self, key: LatentKey) -> bytes | None:
        return await self._run(lambda: _read(self._path(key)))

    async def put(self, key: LatentKey, data: bytes) -> None:
        await self._run(lambda: _write(self._path(key), data))
        self.health.served(stored=True)

    async def delete(self, key: LatentKey) -> None:
        await self._run(lambda: _remove(self._path(key)))

    async def scan(self) -> AsyncIterator[tuple[LatentKey, int]]:
        for found in await self._run(lambda: list(_walk(self._root))):
            yield found

    async def check(self) -> None:
        await self._run(lambda: self._root.mkdir(mode=0o700, parents=True, exist_ok=True))

    async def block_bytes(self) -> int:
        """Makes the folder."""
        return await self._run(lambda: _block_bytes(self._root))

    async def tidy(self) -> list[FoundLatent]:
        return await self._run(lambda: _tidy(self._root))

    async def note_uses(self, key: LatentKey, uses: int, used_s: float) -> None:
        stamp_ns = int(used_s) * _NS + min(uses, _NS - 1)
        await self._run(lambda: _stamp(self._path(key), stamp_ns))

    async def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _path(self, key: LatentKey) -> Path:
        return self._root / key.scope / key.model / key.entry_id / f"{key.step}{SUFFIX}"

    async def _run(self, call: Callable[[], T]) -> T:
        try:
            answer = await asyncio.get_running_loop().run_in_executor(self._pool, call)
        except OSError as error:
            translated = _translate(error)
            full = isinstance(translated, StoreFull)
            self.health.failed(StoreReason.FULL if full else StoreReason.FAILED, str(translated))
            raise translated from error
        self.health.served()
        return answer


def _translate(error: OSError) -> StoreError:
    kind = StoreFull if error.errno in _FULL else StoreUnavailable
    return kind(f"latent store: {os.strerror(error.errno or 0)}")


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _write(path: Path, data: bytes) -> None:
    handle, name = _open_temporary(path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(name, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise


def _open_temporary(folder: Path) -> tuple[int, str]:
    for _ in range(PUT_TRIES - 1):
        with suppress(FileNotFoundError):  # a delete removed the folder between the two calls
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return tempfile.mkstemp(prefix=TEMPORARY, dir=folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return tempfile.mkstemp(prefix=TEMPORARY, dir=folder)


def _remove(path: Path) -> None:
    with suppress(FileNotFoundError, NotADirectoryError):
        path.unlink()
        # Empty folders of entry, model and scope go with the last latent; a racing writer keeps them, which is fine.
        with suppress(OSError):
            for folder in list(path.parents)[:3]:
                folder.rmdir()


def _stamp(path: Path, stamp_ns: int) -> None:
    with suppress(FileNotFoundError):  # it went meanwhile
        os.utime(path, ns=(stamp_ns, stamp_ns))


def _block_bytes(root: Path) -> int:
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    return max(LEAST_BLOCK_BYTES, os.statvfs(root).f_frsize)


def _tidy(root: Path) -> list[FoundLatent]:
    """Bottom up, so that folders are looked at after what was in them. Links are removed, never followed."""
    found: list[FoundLatent] = []
    for folder, inner, names in os.walk(root, topdown=False):
        for path in (Path(folder, name) for name in names):
            latent = _found(root, path)
            if latent is None:
                _give_up(path.unlink)
            else:
                found.append(latent)
        for path in (Path(folder, name) for name in inner):
            if path.is_symlink():
                _give_up(path.unlink)
            elif not any(path.iterdir()):
                _give_up(path.rmdir)
    return found


def _found(root: Path, path: Path) -> FoundLatent | None:
    """None for what is no latent of ours."""
    parts = path.relative_to(root).parts
    if len(parts) != 4 or path.is_symlink() or not path.is_file():
        return None
    try:
        key = LatentKey(parts[0], parts[1], parts[2], int(path.stem))
    except ValueError:
        return None
    if parts[3] != f"{key.step}{SUFFIX}":
        return None
    stat = path.stat()
    return FoundLatent(key, stat.st_size, stat.st_mtime_ns % _NS, float(stat.st_mtime_ns // _NS))


def _give_up(remove: Callable[[], None]) -> None:
    """What cannot be removed stays; the folder is a little fuller then."""
    try:
        remove()
    except OSError as error:
        log.warning("a foreign file stays in the latent store: %s", os.strerror(error.errno or 0))


def _walk(root: Path) -> Iterator[tuple[LatentKey, int]]:
    for path in root.glob("*/*/*/*"):
        try:
            stat = path.stat()
            if path.name.startswith(TEMPORARY):
                if stat.st_mtime < time.time() - STALE_AFTER_S:
                    path.unlink()
            elif path.suffix == SUFFIX:
                scope, model, entry, _ = path.relative_to(root).parts
                yield LatentKey(scope, model, entry, int(path.stem)), stat.st_size
        except (FileNotFoundError, ValueError):
            continue  # vanished meanwhile, or not ours: neither is a latent
