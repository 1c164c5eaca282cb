"""Latents as files: the embedded default, shared by the processes of one machine.

    ROOT/scope/model/entry_id/step.latent

A record is written to a temporary name in its folder and renamed, so readers never see half of it; temporary files a
crash left behind are removed when the store is scanned. Blocking calls run in a small thread pool of the store's own.
"""

import asyncio
import errno
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

T = TypeVar("T")
SUFFIX = ".latent"
TEMPORARY = ".tmp-"
STALE_AFTER_S = 3600.0
_FULL = {errno.ENOSPC, errno.EDQUOT}


class DirectoryStore:
    """See the module. The folder is made on first use, readable by its owner only."""

    def __init__(self, root: Path, threads: int = 4) -> None:
        self.health = StoreHealth()
        self._root = root
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="latent-store")

    async def get(self, key: LatentKey) -> bytes | None:
        """See `LatentStore`."""
        return await self._run(lambda: _read(self._path(key)))

    async def put(self, key: LatentKey, data: bytes) -> None:
        """See `LatentStore`."""
        await self._run(lambda: _write(self._path(key), data))
        self.health.served(stored=True)

    async def delete(self, key: LatentKey) -> None:
        """See `LatentStore`."""
        await self._run(lambda: _remove(self._path(key)))

    async def scan(self) -> AsyncIterator[tuple[LatentKey, int]]:
        """See `LatentStore`."""
        for found in await self._run(lambda: list(_walk(self._root))):
            yield found

    async def check(self) -> None:
        """See `LatentStore`."""
        await self._run(lambda: self._root.mkdir(mode=0o700, parents=True, exist_ok=True))

    async def close(self) -> None:
        """See `LatentStore`."""
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
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        return tempfile.mkstemp(prefix=TEMPORARY, dir=folder)
    except FileNotFoundError:  # a delete removed the folder between the two calls
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return tempfile.mkstemp(prefix=TEMPORARY, dir=folder)


def _remove(path: Path) -> None:
    with suppress(FileNotFoundError, NotADirectoryError):
        path.unlink()
        # Empty folders of an entry go with its last latent; a racing writer keeps them, which is fine.
        with suppress(OSError):
            path.parent.rmdir()


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
