"""Full lists without an API server: what they find, what they do when the API server stops in the middle or says no."""

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from t2i_operator.api import KubeApi
from t2i_operator.errors import ApiError, NotFound, TryLater, WriteRefused
from t2i_operator.kinds import CONFIG_MAP
from t2i_operator.mirror import Mirror
from t2i_operator.resync import Resync
from t2i_runtime.kube.kinds import POOL

Document = dict[str, Any]


class Lists:
    """Answers to lists by path, page by page; an error ends a list where it stands."""

    def __init__(self) -> None:
        self.pages: dict[str, list[Document | ApiError]] = {}
        self.objects: dict[str, Document] = {}

    async def list_pages(self, path: str, labels: str = "", fields: str = "") -> AsyncIterator[Document]:
        del labels, fields
        for page in self.pages.get(path, [{"metadata": {"resourceVersion": "100"}, "items": []}]):
            if isinstance(page, ApiError):
                raise page
            yield page

    async def get(self, path: str) -> Document:
        if path not in self.objects:
            raise NotFound(404, path)
        return self.objects[path]


def pool(name: str, version: str = "5", profile: str = "") -> Document:
    """A pool in namespace `ns`."""
    spec = {"profileRef": {"name": profile}} if profile else {}
    return {"metadata": {"namespace": "ns", "name": name, "uid": name, "resourceVersion": version}, "spec": spec}


def page(*items: Document) -> Document:
    """A list in version 100."""
    return {"metadata": {"resourceVersion": "100"}, "items": list(items)}


class Scene:
    """A resync of the whole cluster, and whom it asked for."""

    def __init__(self) -> None:
        self.lists = Lists()
        self.mirror = Mirror()
        self.asked: set[str] = set()
        api = cast("KubeApi", self.lists)
        self.resync = Resync(api, self.mirror, (), every_s=300.0, ask=self.asked.add)

    async def run(self) -> bool:
        """Whether everything was listed; `asked` is of this run alone."""
        self.asked.clear()
        return await self.resync.everything()


async def test_only_what_is_otherwise_is_asked_for() -> None:
    """At first everybody; then who changed, and who has gone."""
    scene = Scene()
    scene.lists.pages[POOL.everywhere] = [page(pool("a"), pool("b")), page(pool("c"))]
    assert await scene.run()
    assert scene.asked == {"ns/a", "ns/b", "ns/c"}
    assert await scene.run()
    assert scene.asked == set()
    scene.lists.pages[POOL.everywhere] = [page(pool("a", "6")), page(pool("c"))]
    assert await scene.run()
    assert scene.asked == {"ns/a", "ns/b"}
    assert scene.mirror.pools == ("ns/c", "ns/a")


async def test_list_that_ends_in_the_middle_drops_nothing_and_forgets_no_news() -> None:
    """What its first page told is known now, so somebody must look at it now."""
    scene = Scene()
    scene.lists.pages[POOL.everywhere] = [page(pool("a"), pool("b"))]
    await scene.run()
    scene.lists.pages[POOL.everywhere] = [page(pool("a", "6")), TryLater(503, "away")]
    assert not await scene.run()
    assert scene.asked == {"ns/a"}
    assert set(scene.mirror.pools) == {"ns/a", "ns/b"}


async def test_nothing_is_decided_from_half_a_picture() -> None:
    """A kind that may not be listed is named; once it may, everybody is looked at."""
    scene = Scene()
    with pytest.raises(TryLater, match="not listed everything yet"):
        scene.resync.check("ns")
    scene.lists.pages[POOL.everywhere] = [page(pool("a"))]
    scene.lists.pages["/api/v1/pods"] = [WriteRefused(403, "cannot list pods")]
    assert not await scene.run()
    assert scene.asked == {"ns/a"}
    with pytest.raises(WriteRefused, match="cannot list pods"):
        scene.resync.check("ns")
    del scene.lists.pages["/api/v1/pods"]
    assert await scene.run()
    assert scene.asked == {"ns/a"}
    scene.resync.check("ns")


async def test_profile_that_changed_or_went_is_found_by_its_name() -> None:
    """It carries no label of ours, so no list shows it."""
    scene = Scene()
    path = CONFIG_MAP.path("ns", "measured")
    measured = {"metadata": {"namespace": "ns", "name": "measured", "uid": "m", "resourceVersion": "7"}}
    scene.lists.pages[POOL.everywhere] = [page(pool("a", profile="measured"))]
    await scene.run()
    scene.mirror.take(CONFIG_MAP, measured)
    scene.lists.objects[path] = {"metadata": {**measured["metadata"], "resourceVersion": "8"}}
    assert await scene.run()
    assert scene.asked == {"ns/a"}
    del scene.lists.objects[path]
    assert await scene.run()
    assert scene.asked == {"ns/a"}
    assert scene.mirror.profiles() == []
