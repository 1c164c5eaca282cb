"""Resync: list everything into the mirror, so that what no watch told of is found.

It runs when the operator begins to lead, a moment after watches began (no watch tells what was deleted before), and
every `--resync-s`. A pool whose objects cannot be listed, or have not been yet, is not looked at: nothing is decided
from half a picture.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from t2i_api.names import POOL_LABEL
from t2i_operator.api import KubeApi
from t2i_operator.errors import ApiError, NotFound, TryLater, WriteRefused
from t2i_operator.kinds import CONFIG_MAP, POOL, ResourceKind
from t2i_operator.mirror import FOR_EVER, OURS, OWNED_KINDS, Mirror, version_of

log = logging.getLogger(__name__)
BEGUN_S = 10.0
RETRY_S = 5.0


class Resync:
    """`ask` is called with the key of every pool of which something was otherwise. No namespaces = all."""

    def __init__(
        self, api: KubeApi, mirror: Mirror, namespaces: Sequence[str], *, every_s: float, ask: Callable[[str], None]
    ) -> None:
        self.every_s = every_s
        self._api = api
        self._mirror = mirror
        self._ask = ask
        self._namespaces = namespaces or ("",)
        unread = TryLater(0, "the API server has not listed everything yet")
        self._unlisted: dict[str, dict[str, ApiError]] = {
            namespace: {kind.kind: unread for kind in (POOL, *OWNED_KINDS)} for namespace in self._namespaces
        }
        self.begun = asyncio.Event()  # a watch begins, at first or anew

    def check(self, namespace: str) -> None:
        """Raises:
        ApiError: why not everything of this namespace is known.
        """
        for one in ("", namespace):
            for error in self._unlisted.get(one, {}).values():
                raise error.with_traceback(None)  # it is raised again and again, and would carry every earlier way

    async def keep(self) -> None:
        """Until cancelled."""
        pause_s = BEGUN_S
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self.begun.wait()
                    await asyncio.sleep(BEGUN_S)
            self.begun.clear()
            pause_s = self.every_s if await self.everything() else RETRY_S

    async def everything(self) -> bool:
        """False if something could not be listed."""
        was_whole = self._is_whole
        try:
            for kind in (POOL, *OWNED_KINDS):
                for namespace in self._namespaces:
                    await self._list_all(kind, namespace)
            await self._read_profiles()
        except ApiError as error:
            log.warning("what was missed will be looked for again: %s", error)
            return False
        self._mirror.listed_all()
        if self._is_whole and not was_whole:
            self._tell(self._mirror.pools)
        return self._is_whole

    @property
    def _is_whole(self) -> bool:
        return not any(self._unlisted.values())

    async def _list_all(self, kind: ResourceKind, namespace: str) -> None:
        try:
            await self._list(kind, namespace, labels="" if kind is POOL else OURS)
        except WriteRefused as error:
            self._unlisted[namespace][kind.kind] = error
            return
        self._unlisted[namespace].pop(kind.kind, None)

    async def pool(self, key: str) -> None:
        """Everything of one pool.

        Raises:
            ApiError: see `errors`.
        """
        namespace, _, name = key.partition("/")
        await self._list(POOL, namespace, fields=f"metadata.name={name}", key=key)
        for kind in OWNED_KINDS:
            await self._list(kind, namespace, labels=f"{OURS},{POOL_LABEL}={name}", key=key)

    async def _list(
        self, kind: ResourceKind, namespace: str, *, labels: str = "", fields: str = "", key: str = ""
    ) -> None:
        """Take in what is there, and drop what is not."""
        uids, version = set[str](), FOR_EVER
        path = kind.path(namespace) if namespace else kind.everywhere
        try:
            async for page in self._api.list_pages(path, labels, fields):
                version = min(version, version_of(page))
                for item in page["items"]:
                    uids.add(item["metadata"]["uid"])
                    self._tell(self._mirror.take(kind, item))
        except NotFound:
            if kind.everywhere_served:
                raise
            uids.clear()  # the cluster has no such kind, so nothing of it is there
        self._tell(self._mirror.keep_listed(self._mirror.places(kind.kind, namespace, key), uids, version))

    async def _read_profiles(self) -> None:
        """They carry no label of ours, so each is read by its name."""
        for place in self._mirror.profiles():
            item = None
            if self._mirror.measured_by(place.namespace, place.name):
                with suppress(NotFound):
                    item = await self._api.get(CONFIG_MAP.path(place.namespace, place.name))
            if item is None:
                self._tell(self._mirror.keep_listed([place], set(), FOR_EVER))
            else:
                self._tell(self._mirror.take(CONFIG_MAP, item))

    def _tell(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._ask(key)
