"""Remember: what was last read or written of every pool, so that a look reads again only what has changed since.

Everything here is the API server's answer to a list, a get or a write of ours. A watch only says which kinds of a pool
are to be read anew, and only if it tells of a version that we do not have: the echo of our own write is no news, nor is
an event out of a watch that begins in the past. What others changed in the same moment comes with the answer to our
write, so its event is no news either: then the kind is read again. An answer older than what is known is not believed.
What a dead watch hides is found at the next full reading (`expire`).

`fill` reads everything in pages when the lease is won, before the watches begin: a restart with 1000 pools then takes
some lists instead of ten for each pool. Whenever watches began, at first or anew, what went away before is never heard
of: `compare` finds it, again with some lists.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence

from t2i_api.names import KIND, POOL_LABEL
from t2i_operator.cluster.api import KubeApi
from t2i_operator.cluster.kinds import CONFIG_MAP, POD, POOL, ResourceKind
from t2i_operator.cluster.known import (
    OURS,
    OWNED_KINDS,
    PROFILE,
    Heard,
    PoolMemory,
    is_labelled,
    is_newer,
    is_relabelled,
    key_of_pool,
    owner_key,
    profile_name,
    slim,
)
from t2i_operator.errors import NotFound, TryLater
from t2i_operator.manifests import Manifest


class Memory:
    """See the module. One event loop; looks at one pool follow each other."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self._pools: dict[str, PoolMemory] = {}
        self._measured_by: dict[str, set[str]] = {}  # pools by the ConfigMap that they name, both NAMESPACE/NAME

    async def fill(self, namespaces: Sequence[str]) -> list[str]:
        """Read everything there is, all namespaces if none is named; the keys of the pools found.

        Raises:
            ApiError: see `errors`.
        """
        for kind in OWNED_KINDS:
            async for item in self._everything(kind, namespaces, OURS):
                key = owner_key(item)
                if key is not None:
                    memory = self._pools.setdefault(key, PoolMemory(stale={KIND, PROFILE}))
                    memory.objects.setdefault(kind.kind, {})[item["metadata"]["name"]] = slim(kind.kind, item)
        found = []
        async for document in self._everything(POOL, namespaces, ""):
            key = key_of_pool(document)
            memory = self._pools.setdefault(key, PoolMemory(stale=set()))
            self._know(key, memory, document)
            memory.stale = {PROFILE}
            found.append(key)
        for key in self._pools.keys() - set(found):
            self.forget(key)  # what a deleted pool has left behind is the garbage collector's
        return found

    async def _everything(self, kind: ResourceKind, namespaces: Sequence[str], labels: str) -> AsyncIterator[Manifest]:
        for path in [kind.path(name) for name in namespaces] or [kind.everywhere]:
            async for item in self._api.list_pages(path, labels):
                yield item

    def hear(self, key: str, heard: Heard) -> bool:
        """Take note of an event; True if it is worth a look."""
        memory = self._pools.get(key)
        if memory is None:
            if heard.gone:
                return False
            memory = self._pools[key] = PoolMemory()
        if memory.knows(heard):
            return False
        memory.news[heard.kind, heard.name] = heard
        return True

    def whose(self, namespace: str, heard: Heard) -> str | None:
        """The pool of an object whose label and owner were stripped: the one that knows it."""
        for key, memory in self._pools.items():
            known = memory.find(heard.kind, heard.name) if key.startswith(f"{namespace}/") else None
            if known is not None and known["metadata"]["uid"] == heard.uid:
                return key
        return None

    def hear_profile(self, namespace: str, name: str, version: str) -> list[str]:
        """A ConfigMap that is no child was made, changed or (no version) deleted: pools that are measured by it."""
        asked = []
        for key in self._measured_by.get(f"{namespace}/{name}", ()):
            memory = self._pools[key]
            known = (memory.profile or {}).get("metadata", {}).get("resourceVersion", "")
            if known != version and PROFILE not in memory.stale:
                memory.stale.add(PROFILE)
                asked.append(key)
        return asked

    def _know(self, key: str, memory: PoolMemory, document: Manifest | None) -> None:
        """The pool is like this now."""
        namespace = key.partition("/")[0]
        before, after = profile_name(memory.document), profile_name(document)
        if before is not None and before != after:
            self._measured_by[f"{namespace}/{before}"].discard(key)
        if after is not None:
            self._measured_by.setdefault(f"{namespace}/{after}", set()).add(key)
        memory.document = None if document is None else slim(KIND, document)

    def has_news(self, key: str) -> bool:
        """True if a look would read something."""
        memory = self._pools.get(key)
        return memory is None or bool(memory.to_read())

    def peek(self, key: str) -> PoolMemory:
        """What is known, without reading."""
        return self._pools.get(key, PoolMemory())

    def expire(self, key: str, kinds: Iterable[str] = ()) -> None:
        """Read these kinds again at the next look, or everything."""
        memory = self._pools.get(key)
        if memory is not None:
            memory.stale |= set(kinds) or {KIND, PROFILE, *(kind.kind for kind in OWNED_KINDS)}

    async def compare(self, namespaces: Sequence[str]) -> list[str]:
        """Read everything once more, in pages: the pools of which something is otherwise than remembered. The next look
        at them reads in full.

        Raises:
            ApiError: see `errors`.
        """
        fresh = Memory(self._api)
        await fresh.fill(namespaces)
        other = [
            key
            for key in self._pools.keys() | fresh._pools.keys()
            if self.peek(key).versions() != fresh.peek(key).versions()
        ]
        for key in other:
            self.expire(key)
        return other

    async def read(self, key: str) -> PoolMemory:
        """What is known of a pool, after everything has been read that is not up to date.

        Raises:
            NotFound: the pool is gone.
            ApiError: see `errors`; what was to be read still is.
        """
        memory = self._pools.setdefault(key, PoolMemory())
        kinds, news = memory.to_read(), memory.news
        memory.stale, memory.news = set(), {}
        try:
            if KIND in kinds or memory.document is None:
                kinds |= await self._read_pool(key, memory)
            if PROFILE in kinds:
                memory.profile = await self._read_profile(key, memory)
            await asyncio.gather(*(self._list(key, memory, kind) for kind in OWNED_KINDS if kind.kind in kinds))
        except BaseException:
            memory.stale |= kinds
            memory.news = {**news, **memory.news}
            raise
        return memory

    async def _read_pool(self, key: str, memory: PoolMemory) -> set[str]:
        """Read the document; what else must be read because of it."""
        namespace, _, name = key.partition("/")
        before, found = memory.document, await self._api.get(POOL.path(namespace, name))
        if before is not None and is_newer(str(before["metadata"].get("resourceVersion", "")), found):
            raise TryLater(0, f"{key}: the API server answers from the past; its answer is left out")
        self._know(key, memory, found)
        if before is not None and before["metadata"]["uid"] != found["metadata"]["uid"]:
            return {PROFILE, *(kind.kind for kind in OWNED_KINDS)}
        changed = before is None or profile_name(before) != profile_name(found)
        return {PROFILE} if changed else set()

    async def _read_profile(self, key: str, memory: PoolMemory) -> Manifest | None:
        name = profile_name(memory.document)
        if name is None:
            return None
        try:
            return slim(CONFIG_MAP.kind, await self._api.get(CONFIG_MAP.path(key.partition("/")[0], name)))
        except NotFound:
            return None

    async def _list(self, key: str, memory: PoolMemory, kind: ResourceKind) -> None:
        namespace, _, name = key.partition("/")
        answer = await self._api.list(kind.path(namespace), f"{POOL_LABEL}={name},{OURS}")
        known = [str(item["metadata"].get("resourceVersion", "")) for item in memory.listed(kind.kind)]
        if any(is_newer(version, answer) for version in known):
            raise TryLater(0, f"{key}: the API server lists {kind.plural} of the past; its answer is left out")
        memory.objects[kind.kind] = {item["metadata"]["name"]: slim(kind.kind, item) for item in answer["items"]}

    def keep(self, key: str, kind: str, item: Manifest) -> None:
        """An answer to a write of ours, or an object found by its name. One that no watch would tell of is not kept."""
        memory = self._pools.get(key)
        if memory is None:
            return
        memory.writes += 1
        if kind == KIND:
            self._know(key, memory, item)
        elif is_labelled(key, item):
            before, after = memory.find(kind, item["metadata"]["name"]), slim(kind, item)
            if kind == POD.kind and not is_relabelled(before, after):
                memory.stale.add(kind)  # somebody else changed it too, and nothing was decided by that
            memory.objects.setdefault(kind, {})[item["metadata"]["name"]] = after

    def keep_applied(self, key: str, kind: str, item: Manifest) -> None:
        """An answer to a child's manifest that we applied; kinds without a spec have no generation."""
        self.keep(key, kind, item)
        memory, metadata = self._pools.get(key), item["metadata"]
        if memory is not None and "generation" in metadata:
            memory.answered[metadata["uid"]] = metadata["generation"]

    def drop(self, key: str, kind: str, name: str) -> None:
        """We deleted it."""
        memory = self._pools.get(key)
        if memory is not None:
            memory.writes += 1
            gone = memory.objects.get(kind, {}).pop(name, None)
            if gone is not None:
                memory.answered.pop(gone["metadata"]["uid"], None)

    def clear(self) -> None:
        """Know nothing."""
        self._pools.clear()
        self._measured_by.clear()

    def forget(self, key: str) -> None:
        """The pool is gone."""
        memory = self._pools.pop(key, None)
        if memory is not None:
            self._know(key, memory, None)
