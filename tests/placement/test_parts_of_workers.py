"""Workers that draw with unlike files under one name are told of: workers played at the wire."""

import pytest

from played_workers import World, turns, world
from t2i_gateway.workers.parts import PartsOfWorkers
from t2i_protos.v1 import worker_pb2

Adapter, Component = worker_pb2.AdapterDescription, worker_pb2.ComponentDescription


def described(name: str, adapter: str, component: str = "") -> worker_pb2.WorkerDescription:
    return worker_pb2.WorkerDescription(
        name=name,
        adapters=[Adapter(name="style", digest=adapter), Adapter(name="same", digest="s")],
        components=[Component(name="canny", digest=component)],
    )


async def describe_anew(played: World, *described: worker_pb2.WorkerDescription) -> None:
    for one in described:
        played.workers[one.name].described = one
    played.pool.renew()
    for worker in played.workers.values():
        worker.say()
    await turns()


async def test_gateway_tells_of_a_worker_that_restarted_with_another_file(caplog: pytest.LogCaptureFixture) -> None:
    async with world() as played:
        await describe_anew(played, described("first", "old"), described("second", "old"))
        assert "another file" not in caplog.text
        await describe_anew(played, described("second", "new"))
        assert "worker second: adapter 'style' is another file than on first, so images differ" in caplog.text
        assert "'same'" not in caplog.text
        caplog.clear()
        await describe_anew(played, described("first", "new"))
        assert "another file" not in caplog.text


def test_component_of_other_files_is_told_unless_the_worker_is_older(caplog: pytest.LogCaptureFixture) -> None:
    parts = PartsOfWorkers()
    for name in ("a", "b"):
        parts.take_in(described(name, "", "old"))
    parts.take_in(described("of an older version", ""))
    assert not caplog.records
    parts.take_in(described("c", "", "new"))
    assert "worker c: component 'canny' is another file than on a and 1 more" in caplog.text


def test_worker_that_went_is_no_peer(caplog: pytest.LogCaptureFixture) -> None:
    parts = PartsOfWorkers()
    parts.take_in(described("a", "old"))
    parts.forget("a")
    parts.take_in(described("b", "new"))
    assert not caplog.records
