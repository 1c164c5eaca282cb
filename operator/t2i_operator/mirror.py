"""The mirror: what the operator knows of the cluster, in memory.

It holds every pool, everything that belongs to one, and the ConfigMaps that pools name as their profile. Three bring
objects: watches, the answers to our own writes, and full lists (`resync`). Whoever brings an object, its newest version
stays and an older one is ignored. So an event that was under way while we wrote changes nothing, nor does an answer
from the past.

Resource versions of one kind come from one counter of the API server, so they are compared as numbers. Versions that
are no numbers are believed in the order in which they come.

What was deleted must not come back by an answer that was under way: its UID is remembered until the next full list.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from t2i_api.names import FIELD_MANAGER, MANAGED_BY_LABEL, POOL_LABEL
from t2i_operator.kinds import CHILD_KINDS, CONFIG_MAP, POD, POOL, ResourceKind
from t2i_operator.manifests.child import Manifest, owning_pool
from t2i_operator.sharing import SharedValues

OWNED_KINDS = (*CHILD_KINDS, POD)
WATCHED_KINDS = tuple(kind for kind in OWNED_KINDS if kind.everywhere_served)  # full lists tell of the others
OURS = f"{MANAGED_BY_LABEL}={FIELD_MANAGER}"
NOBODY = ""  # in place of a pool's key
FOR_EVER = 1 << 64


@dataclass(frozen=True, slots=True)
class Place:
    """Where an object is: only one can be there at a time."""

    kind: str
    namespace: str
    name: str


class Mirror:
    """No I/O, one event loop. A pool's key is `NAMESPACE/NAME`. Whatever takes something in returns the keys of the
    pools that should be looked at because of it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._shared = SharedValues()
        self._objects: dict[Place, Manifest] = {}
        self._places: dict[str, set[Place]] = {}  # of each pool
        self._pools: dict[str, Manifest] = {}
        self._measured: dict[Place, set[str]] = {}  # by a ConfigMap, the pools that name it as their profile
        self._gone: dict[str, int] = {}  # by UID, the version in which it went
        self._applied: dict[str, int] = {}  # by UID, the generation that the API server made of our last manifest
        self._unheard: dict[str, tuple[float, int]] = {}  # by pool, since when no watch has told of which version

    def hear(self, kind: ResourceKind, item: Manifest, deleted: bool = False) -> set[str]:
        """An event of a watch."""
        key = key_of(item)
        if kind is POOL and key in self._unheard and (deleted or version_of(item) >= self._unheard[key][1]):
            del self._unheard[key]
        return self.drop(kind, item) if deleted else self.take(kind, item)

    def wrote(self, kind: ResourceKind, item: Manifest) -> None:
        """The answer to a write of ours. A pool's must come back as an event, or we are deaf (`unheard_s`)."""
        is_new = bool(self.take(kind, item))
        if kind is POOL and is_new:
            since_s = self._unheard.get(key_of(item), (self._clock(), 0))[0]
            self._unheard[key_of(item)] = (since_s, version_of(item))

    def applied(self, kind: ResourceKind, item: Manifest) -> None:
        """The answer to a child's whole manifest. Kinds without a spec have no generation."""
        self.wrote(kind, item)
        if "generation" in item["metadata"]:
            self._applied[item["metadata"]["uid"]] = item["metadata"]["generation"]

    def take(self, kind: ResourceKind, item: Manifest) -> set[str]:
        """An object as somebody saw it."""
        place = place_of(kind, item)
        held = self._objects.get(place)
        if self._is_known(item, held):
            return set()
        told = self._interested(place, item)
        if not told:  # a stranger's, or ours no more: somebody took its marks away
            return self.drop(kind, item)
        told |= self._interested(place, held)
        self._remove(place)
        self._add(place, self._shared.share(slim(kind, item)))
        return told

    def drop(self, kind: ResourceKind, item: Manifest) -> set[str]:
        """An object has gone, in this version."""
        place, uid, version = place_of(kind, item), item["metadata"]["uid"], version_of(item)
        held = self._objects.get(place)
        if held is None or held["metadata"]["uid"] != uid or version < version_of(held):
            return set()
        self._gone[uid] = version
        return self._remove(place)

    def deleted(self, kind: ResourceKind, namespace: str, name: str, uid: str) -> None:
        """We deleted it: whatever is still under way tells of the past."""
        place = Place(kind.kind, namespace, name)
        self._gone[uid] = FOR_EVER
        if place in self._objects and self._objects[place]["metadata"]["uid"] == uid:
            self._remove(place)

    def keep_listed(self, places: Iterable[Place], uids: set[str], version: int) -> set[str]:
        """A list in this version had these UIDs. Of these places, what is older and not in the list has gone."""
        gone = [
            place
            for place in places
            if self._objects[place]["metadata"]["uid"] not in uids and version_of(self._objects[place]) <= version
        ]
        return set().union(*(self._remove(place) for place in gone))

    def forget(self, key: str) -> None:
        """Know nothing of this pool any more, not even which versions were the newest."""
        for place in self.places(key=key):
            self._remove(place)

    def listed_all(self) -> None:
        """After a full list nothing is under way that is older."""
        self._gone.clear()
        uids = {item["metadata"]["uid"] for item in self._objects.values()}
        self._applied = {uid: generation for uid, generation in self._applied.items() if uid in uids}
        self._unheard = {key: debt for key, debt in self._unheard.items() if key in self._pools}

    def pool(self, key: str) -> Manifest | None:
        """The pool's document."""
        return self._pools.get(key)

    @property
    def pools(self) -> tuple[str, ...]:
        """The keys of all."""
        return tuple(self._pools)

    def find(self, kind: ResourceKind, namespace: str, name: str) -> Manifest | None:
        """One object; None also for a stranger's."""
        return self._objects.get(Place(kind.kind, namespace, name))

    def belongings(self, key: str, kind: ResourceKind) -> list[Manifest]:
        """What belongs to a pool of one kind, by name."""
        places = [place for place in self._places.get(key, ()) if place.kind == kind.kind]
        return [self._objects[place] for place in sorted(places, key=lambda place: place.name)]

    def is_as_applied(self, item: Manifest) -> bool:
        """True if its spec is what the API server made of the manifest that we applied last."""
        generation = item["metadata"].get("generation")
        return generation is not None and self._applied.get(item["metadata"]["uid"]) == generation

    def places(self, kind: str = "", namespace: str = "", key: str = "") -> list[Place]:
        """Where something is that belongs to a pool: to any, or to this one."""
        prefix = f"{namespace}/" if namespace else ""
        keys = [key] if key else [one for one in self._places if one != NOBODY and one.startswith(prefix)]
        return [place for one in keys for place in self._places.get(one, ()) if kind in ("", place.kind)]

    def profiles(self) -> list[Place]:
        """ConfigMaps that pools name, or have named, and that belong to none."""
        return list(self._places.get(NOBODY, ()))

    def measured_by(self, namespace: str, name: str) -> set[str]:
        """Pools whose profileRef names this ConfigMap."""
        return set(self._measured.get(Place(CONFIG_MAP.kind, namespace, name), ()))

    def unheard_s(self) -> float:
        """How long the oldest status that we wrote has not come back as an event; 0 if all have.

        A quiet cluster sends no events, so silence proves nothing. Only this shows that a watch is dead while it looks
        alive.
        """
        written_s = (since_s for key, (since_s, _) in self._unheard.items() if key in self._pools)
        return max((self._clock() - since_s for since_s in written_s), default=0.0)

    def _is_known(self, item: Manifest, held: Manifest | None) -> bool:
        """True if it tells nothing new."""
        version = version_of(item)
        if version <= self._gone.get(item["metadata"]["uid"], -1):
            return True
        if held is None:
            return False
        same = all(item["metadata"].get(part) == held["metadata"].get(part) for part in ("uid", "resourceVersion"))
        return same or 0 < version < version_of(held)

    def _owner(self, place: Place, item: Manifest) -> str | None:
        """The pool that it belongs to. What we manage says so by a label; whose it is, by its owner or a label."""
        if place.kind == POOL.kind:
            return key_of(item)
        labels = item["metadata"].get("labels") or {}
        if labels.get(MANAGED_BY_LABEL) != FIELD_MANAGER:
            return None
        name = owning_pool(item["metadata"]) or labels.get(POOL_LABEL)
        return f"{place.namespace}/{name}" if name else None

    def _interested(self, place: Place, item: Manifest | None) -> set[str]:
        """Pools that it matters to."""
        if item is None:
            return set()
        owner = self._owner(place, item)
        profiled = self.measured_by(place.namespace, place.name) if place.kind == CONFIG_MAP.kind else set()
        return profiled | ({owner} if owner is not None else set())

    def _add(self, place: Place, item: Manifest) -> None:
        self._objects[place] = item
        self._places.setdefault(self._owner(place, item) or NOBODY, set()).add(place)
        if place.kind == POOL.kind:
            self._pools[key_of(item)] = item
            self._measured.setdefault(_profile_place(item), set()).add(key_of(item))

    def _remove(self, place: Place) -> set[str]:
        held = self._objects.pop(place, None)
        if held is None:
            return set()
        told = self._interested(place, held)
        _discard(self._places, self._owner(place, held) or NOBODY, place)
        if place.kind == POOL.kind:
            del self._pools[key_of(held)]
            _discard(self._measured, _profile_place(held), key_of(held))
        return told


def _profile_place(pool: Manifest) -> Place:
    """Without a name for a pool that names none: nothing can be there."""
    return Place(CONFIG_MAP.kind, pool["metadata"]["namespace"], profile_name(pool) or "")


def _discard(sets: dict[Any, set[Any]], key: object, value: object) -> None:
    """Empty sets are not kept."""
    sets[key].discard(value)
    if not sets[key]:
        del sets[key]


def key_of(item: Manifest) -> str:
    """Of a pool, as in queues and logs."""
    return f"{item['metadata']['namespace']}/{item['metadata']['name']}"


def place_of(kind: ResourceKind, item: Manifest) -> Place:
    """Where it is."""
    return Place(kind.kind, item["metadata"]["namespace"], item["metadata"]["name"])


def version_of(item: Manifest) -> int:
    """0 if it is no number."""
    version = str(item["metadata"].get("resourceVersion", ""))
    return int(version) if version.isdigit() else 0


def profile_name(pool: Manifest) -> str | None:
    """The ConfigMap that a pool names."""
    name = ((pool.get("spec") or {}).get("profileRef") or {}).get("name")
    return None if name is None else str(name)


def slim(kind: ResourceKind, item: Manifest) -> Manifest:
    """Without what nobody here reads: who manages which field, and of a pod's spec all but names and ports."""
    metadata = {name: value for name, value in item["metadata"].items() if name != "managedFields"}
    kept = {**item, "metadata": metadata}
    if kind is POD:
        containers = item.get("spec", {}).get("containers", ())
        kept["spec"] = {"containers": [{"name": one["name"], "ports": one.get("ports", [])} for one in containers]}
    return kept
