"""What a mounted Secret says, kept current while the process runs.

The kubelet swaps a Secret's files in one rename, some time after the Secret has changed. We look at the files' stamps
every second and read them again when they differ. Contents that cannot be used (or half of a pair, caught in the middle
of a copy) leave what we have in force. They are logged once, and are tried again at every look.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from t2i_runtime.errors import SecurityError

log = logging.getLogger(__name__)
LOOK_EVERY_S = 1.0
T = TypeVar("T")
Stamp = tuple[tuple[str, int, int, int], ...]


class Reloaded(Generic[T]):
    """`current` is the last contents that could be used; `version` counts them. One writer: `run`, on the event loop.

    `on_outcome` hears of every reading: True = in force, False = refused.
    """

    def __init__(
        self,
        what: str,
        folder: Path,
        read: Callable[[Path], T],
        on_outcome: Callable[[bool], None] = lambda _: None,
    ) -> None:
        """Read at once.

        Raises:
            SecurityError: `read`'s, with `what` before it.
        """
        self._what = what
        self._folder = folder
        self._read = read
        self._on_outcome = on_outcome
        self._on_change: list[Callable[[T], None]] = []
        self._complaint = ""
        self._stamp = stamp_of(folder)
        try:
            self.current = read(folder)
        except SecurityError as error:
            raise type(error)(f"{what}: {error}") from error
        self.version = 1
        on_outcome(True)

    def on_change(self, listener: Callable[[T], None]) -> None:
        """Call `listener` with every later contents, on the event loop."""
        self._on_change.append(listener)

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.look()

    async def look(self) -> None:
        stamp = await asyncio.to_thread(stamp_of, self._folder)
        if stamp == self._stamp:
            return
        try:
            found = await asyncio.to_thread(self._read, self._folder)
        except SecurityError as error:
            self._refuse(str(error))
            return
        self._stamp, self._complaint = stamp, ""
        self.current = found
        self.version += 1
        log.info("%s: changed, read again", self._what)
        self._on_outcome(True)
        for listener in self._on_change:
            listener(found)

    def _refuse(self, complaint: str) -> None:
        if complaint != self._complaint:
            self._complaint = complaint
            log.error("%s: the changed contents cannot be used, those before stay in force: %s", self._what, complaint)
            self._on_outcome(False)


def stamp_of(folder: Path) -> Stamp:
    """Names, times, inodes and sizes of the folder's files, links followed; differs whenever a file was replaced."""
    stamps = []
    try:
        for path in sorted(folder.iterdir()):
            if not path.name.startswith(".."):  # the kubelet's own, behind the links
                seen = path.stat()
                stamps.append((path.name, seen.st_mtime_ns, seen.st_ino, seen.st_size))
    except OSError:
        return ()  # gone, or in the middle of a swap: not what we have, so it is looked at again
    return tuple(stamps)
