"""Watching a collection of the API server: what it holds now, again after every change, for ever.

List, then watch from there. Whatever ends the watch (410, a dropped connection, silence) is answered by listing anew
after a pause, so a change that was missed is found. While the API server is away the last picture stands: nothing is
reported that was not seen. Bookmarks come about every minute; a watch that is silent for longer is dead.
"""

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from kubernetes.aio.client import ApiClient

from t2i_policy.backoff import Backoff

log = logging.getLogger(__name__)
Item = Mapping[str, Any]
Show = Callable[[Mapping[str, Item]], None]
LIST_LIMIT_S = 10.0
SILENT_LIMIT_S = 90.0
SERVER_LIMIT_S = 300
BACKOFF = Backoff(first_s=0.2, most_s=10.0)


class WatchEndedError(Exception):
    """The watch is over; list anew."""


@dataclass(frozen=True, slots=True)
class Collection:
    """A path of the API server, and which of its objects: selectors as kubectl takes them, empty = all."""

    path: str
    labels: str = ""
    fields: str = ""


class Watch:
    """Calls `show` with all objects by name, after every change; `on_message` after every answer that says how things
    are, bookmarks too; `on_restart` at beginnings after the first."""

    def __init__(
        self,
        client: ApiClient,
        collection: Collection,
        show: Show,
        on_message: Callable[[], None],
        on_restart: Callable[[], None],
    ) -> None:
        self._client = client
        self._collection = collection
        self._show = show
        self._on_message = on_message
        self._on_restart = on_restart
        self._items: dict[str, Item] = {}

    async def run(self) -> None:
        """Until cancelled."""
        pauses = BACKOFF.pauses()
        while True:
            try:
                version = await self._list()
                pauses = BACKOFF.pauses()
                await self._follow(version)
            except (WatchEndedError, aiohttp.ClientError, TimeoutError, ValueError) as error:
                log.info("watch of %s: %s", self._collection.path, error or type(error).__name__)
            self._on_restart()
            await asyncio.sleep(next(pauses) * random.uniform(1.0, 1.5))

    async def _list(self) -> str:
        async with asyncio.timeout(LIST_LIMIT_S):
            answer = await self._get({}, LIST_LIMIT_S)
            document = json.loads(await answer.read())
        if answer.status != 200:
            raise WatchEndedError(f"{answer.status} {document.get('message', '')}")
        self._items = {item["metadata"]["name"]: item for item in document.get("items", ())}
        self._on_message()
        self._show(self._items)
        return str(document["metadata"]["resourceVersion"])

    async def _follow(self, version: str) -> None:
        query = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": version}
        query["timeoutSeconds"] = str(SERVER_LIMIT_S)
        answer = await self._get(query, SERVER_LIMIT_S + 30)
        try:
            if answer.status != 200:
                raise WatchEndedError(f"{answer.status}")
            async for event in self._events(answer):
                self._on_message()
                self._take_in(event)
        finally:
            answer.response.close()
        raise WatchEndedError("the server ended it")

    async def _events(self, answer: Any) -> AsyncIterator[Mapping[str, Any]]:
        """One a line; silence is an end."""
        while True:
            async with asyncio.timeout(SILENT_LIMIT_S):
                line = await answer.response.content.readline()
            if not line:
                return
            yield json.loads(line)

    def _take_in(self, event: Mapping[str, Any]) -> None:
        kind, item = event["type"], event["object"]
        if kind == "ERROR":
            raise WatchEndedError(f"{item.get('code')} {item.get('message', '')}")
        if kind == "BOOKMARK":
            return
        name = item["metadata"]["name"]
        if kind == "DELETED":
            self._items = {key: value for key, value in self._items.items() if key != name}
        else:
            self._items = {**self._items, name: item}
        self._show(self._items)

    async def _get(self, query: Mapping[str, str], limit_s: float) -> Any:
        selectors = {"labelSelector": self._collection.labels, "fieldSelector": self._collection.fields}
        call = await self._client.param_serialize(
            "GET",
            self._collection.path,
            query_params=[*selectors.items(), *query.items()],
            header_params={"Accept": "application/json"},
            auth_settings=["BearerToken"],
        )
        return await self._client.call_api(*call[:4], _request_timeout=limit_s)
