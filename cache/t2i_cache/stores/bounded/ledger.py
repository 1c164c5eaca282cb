"""The ledger of a store that bounds itself: what lies there, what it takes of the disk, and what must go first.

Counted is what a disk gives away: whole blocks for a file, and blocks for the folders above it. A folder's blocks grow
with the names in it and do not shrink while it lives (ext4). So a folder counts with the most names that it ever had.

    disk(file)   = blocks(bytes)
    disk(folder) = blocks(NAME_BYTES x names), one block at least

Nothing here touches a disk. One writer: the store that owns the ledger.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from t2i_cache.keys import EntryName, LatentKey
from t2i_cache.records import LatentRecord
from t2i_cache.stores.protocol import StoreLimits
from t2i_policy.eviction import LOW_WATER, CachedItem, EvictionPolicy, EvictionReason
from t2i_policy.steps_at_stake import StepsAtStake

NAME_BYTES = 160  # of one name in a folder, at most: keys have 128 characters, and entries are rounded up
_Folder = tuple[str, ...]
_ROOT: _Folder = ()


@dataclass(frozen=True, slots=True)
class HeldLatents:
    """All stored latents of one earlier prompt. `record` is any of theirs, without its tensor."""

    record: LatentRecord
    items: tuple[CachedItem[LatentKey], ...]


@dataclass(slots=True)
class _Entry:
    record: LatentRecord
    items: dict[int, CachedItem[LatentKey]] = field(default_factory=dict)


@dataclass(slots=True)
class _Names:
    """Names in a folder: now, and the most there ever were."""

    now: int = 0
    most: int = 0


class Ledger:
    """`block_bytes` of the disk; 0 for a store in memory, which has neither blocks nor folders."""

    def __init__(self, limits: StoreLimits, block_bytes: int, policy: EvictionPolicy | None = None) -> None:
        self.limits = limits
        self._block_bytes = block_bytes
        self._policy: EvictionPolicy = policy or StepsAtStake()
        self._entries: dict[EntryName, _Entry] = {}
        self._folders: dict[_Folder, _Names] = {_ROOT: _Names()}
        self.used_bytes = self._folder_bytes(0)  # what all of it takes of the disk

    @property
    def num_entries(self) -> int:
        return len(self._entries)

    def get(self, key: LatentKey) -> CachedItem[LatentKey] | None:
        entry = self._entries.get(key.entry)
        return entry.items.get(key.step) if entry else None

    def held(self, key: LatentKey) -> HeldLatents | None:
        """All of the entry of this key (its step is ignored)."""
        entry = self._entries.get(key.entry)
        return HeldLatents(entry.record, tuple(entry.items.values())) if entry else None

    def __iter__(self) -> Iterator[HeldLatents]:
        for entry in self._entries.values():
            yield HeldLatents(entry.record, tuple(entry.items.values()))

    def added_bytes(self, key: LatentKey, size_bytes: int) -> int:
        """What a file of this size would take beside all that is there, its folders included."""
        new = 0
        for folder in _above(key):
            names = self._folders.get(folder)
            grown = max(names.most, names.now + 1) if names else 1
            new += self._folder_bytes(grown) - (self._folder_bytes(names.most) if names else 0)
        return self._file_bytes(size_bytes) + new

    def fits_alone(self, key: LatentKey, size_bytes: int) -> bool:
        """Whether such a file would fit below the capacity if nothing else were there."""
        empty = Ledger(self.limits, self._block_bytes)
        return empty.used_bytes + empty.added_bytes(key, size_bytes) <= self.limits.capacity_bytes

    def add(self, record: LatentRecord, size_bytes: int, uses: int, used_s: float) -> None:
        """A latent is stored, in place of an older one of its key."""
        key = record.key
        self.remove(key)
        entry = self._entries.setdefault(key.entry, _Entry(record))
        entry.record = record
        taken = self._file_bytes(size_bytes)
        entry.items[key.step] = CachedItem(key, key.step, taken, uses, record.created_s, used_s)
        self.used_bytes += taken
        self._enter(_path(key))

    def remove(self, key: LatentKey) -> bool:
        """A latent is gone; False if it was not here."""
        entry = self._entries.get(key.entry)
        item = entry.items.pop(key.step, None) if entry else None
        if entry is None or item is None:
            return False
        self.used_bytes -= item.size_bytes
        if not entry.items:
            del self._entries[key.entry]
        self._leave(_path(key))
        return True

    def note_use(self, key: LatentKey, now_s: float) -> CachedItem[LatentKey] | None:
        """Count a use; what is known of the latent now."""
        item = self.get(key)
        if item is None:
            return None
        used = replace(item, hits=item.hits + 1, used_s=now_s)
        self._entries[key.entry].items[key.step] = used
        return used

    def due(self, item: CachedItem[LatentKey], now_s: float) -> EvictionReason | None:
        """Why this latent may not be read any more; None if it may."""
        if now_s - item.stored_s > self.limits.ttl_s:
            return EvictionReason.EXPIRED
        return EvictionReason.WORN_OUT if item.hits > self.limits.max_reuses else None

    def all_due(self, now_s: float) -> list[tuple[LatentKey, EvictionReason]]:
        """Every latent that is past its time or its uses."""
        items = [item for entry in self._entries.values() for item in entry.items.values()]
        return [(item.key, reason) for item in items if (reason := self.due(item, now_s)) is not None]

    def choose(self, coming_bytes: int, now_s: float, disk_full: bool = False) -> tuple[LatentKey, ...]:
        """What must go before so many bytes come, in the policy's order, down to its low water. Nothing while they fit
        below the capacity; a full disk has room for less than what is there."""
        capacity = self.used_bytes if disk_full else self.limits.capacity_bytes
        wanted = self.used_bytes + coming_bytes
        if wanted <= capacity:
            return ()
        excess, chosen = wanted - int(LOW_WATER * capacity), list[LatentKey]()
        left = Counter({name: len(entry.items) for name, entry in self._entries.items()})
        for item in self._policy.ranked([tuple(entry.items.values()) for entry in self._entries.values()], now_s):
            if excess <= 0:
                break
            chosen.append(item.key)
            left[item.key.entry] -= 1
            excess -= item.size_bytes + (0 if left[item.key.entry] else self._folder_bytes(0))
        return tuple(chosen)

    def _enter(self, path: _Folder) -> None:
        """One more name in the folder of `path`; a folder that is new is a name in the one above it."""
        folder = path[:-1]
        if folder not in self._folders:
            self._folders[folder] = _Names()
            self.used_bytes += self._folder_bytes(0)
            self._enter(folder)
        names = self._folders[folder]
        names.now += 1
        if names.now > names.most:
            self.used_bytes += self._folder_bytes(names.now) - self._folder_bytes(names.most)
            names.most = names.now

    def _leave(self, path: _Folder) -> None:
        folder = path[:-1]
        names = self._folders[folder]
        names.now -= 1
        if not names.now and folder != _ROOT:
            del self._folders[folder]
            self.used_bytes -= self._folder_bytes(names.most)
            self._leave(folder)

    def _file_bytes(self, size_bytes: int) -> int:
        return _blocks(size_bytes, self._block_bytes) if self._block_bytes else size_bytes

    def _folder_bytes(self, names: int) -> int:
        return _blocks(max(1, names * NAME_BYTES), self._block_bytes) if self._block_bytes else 0


def _blocks(size_bytes: int, block_bytes: int) -> int:
    return -(-size_bytes // block_bytes) * block_bytes


def _path(key: LatentKey) -> _Folder:
    return *key.entry, str(key.step)


def _above(key: LatentKey) -> Iterator[_Folder]:
    """The folders above a latent's file, the root first."""
    path = _path(key)
    return (path[:depth] for depth in range(len(path)))
