"""A name that leads to the wrong server: a primary that became a replica, a cluster, a user without rights.

Real Valkey servers, and a played one for errors that a real one gives in passing moments. Failing over must end by
itself: connections to the old server are dropped, and the next call asks the name anew.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from played_valkey import PlayedValkey
from slow_proxy import SlowProxy
from t2i_cache.errors import StoreUnavailable
from t2i_cache.keys import LatentKey
from t2i_cache.records import LatentRecord, encode_record
from t2i_cache.stores import RedisStore, StoreLimits, StoreReason
from t2i_cache.stores.redis import PASSWORD_VARIABLE, USER_VARIABLE, open_redis
from t2i_cache.stores.redis.circuit_breaker import CircuitBreaker
from t2i_testing_kit.valkey.server import ValkeyServer, valkey_server

KEY = LatentKey("alice", "model", "cat", 5)
LIMITS = StoreLimits(1 << 20, 60.0)
POOL = "shop/paint"
DOCS = Path(__file__).parents[2] / "docs" / "cache.md"
DEADLINE_S = 60.0


@asynccontextmanager
async def opened(url: str, environment: dict[str, str] | None = None) -> AsyncIterator[RedisStore]:
    store = open_redis(url, POOL, LIMITS, environment or {})
    try:
        yield store
    finally:
        await store.close()


async def refusal(store: RedisStore) -> str:
    """What the error says that a call must end in, without a rest after it."""
    store._resting = CircuitBreaker()
    with pytest.raises(StoreUnavailable) as error:
        await store.get(KEY)
    store._resting = CircuitBreaker()
    return str(error.value).removeprefix("latent store: ")


def follow(replica: ValkeyServer, primary: ValkeyServer) -> None:
    """Make one the other's replica, as a failover does with an old primary that is still alive."""
    assert replica.command("REPLICAOF", "127.0.0.1", primary.port).startswith(b"+OK")


async def test_failover_that_keeps_the_old_primary_alive_is_followed(tmp_path: Path) -> None:
    """The name moves, the old primary stays as a replica: one write is refused, the next ones reach the new primary."""
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    with valkey_server(tmp_path / "old") as old, valkey_server(tmp_path / "new") as new:
        async with SlowProxy(old.port) as name, opened(name.url) as store:
            await asyncio.gather(*(store.put(KEY, b"before") for _ in range(3)))
            name.behind = new.port
            follow(old, new)
            with pytest.raises(StoreUnavailable, match=r"cache.storeUrl: the server takes no writes"):
                await store.put(KEY, b"after")
            assert store.health.trouble is not None
            assert store.health.trouble.reason is StoreReason.READ_ONLY
            await asyncio.gather(*(store.put(KEY, b"after") for _ in range(4)))
            assert store.health.trouble is None
            assert b"after" in new.command("GET", f"{store.prefix}l:{KEY.text}")


async def test_reader_that_waits_for_changes_follows_a_failover(tmp_path: Path) -> None:
    """A gateway blocked on the old primary is thrown off it, and waits at the new one next."""
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    with valkey_server(tmp_path / "old") as old, valkey_server(tmp_path / "new") as new:
        async with SlowProxy(old.port) as name, opened(name.url) as store:
            waiting = asyncio.create_task(store.read_changes("0", DEADLINE_S))
            async with asyncio.timeout(DEADLINE_S):
                while b"blocked_clients:1" not in old.command("INFO", "clients"):  # noqa: ASYNC110 - seen from outside
                    await asyncio.sleep(0.01)
            name.behind = new.port
            follow(old, new)
            with pytest.raises(StoreUnavailable, match="UNBLOCKED"):
                await waiting
            await store.put(KEY, b"x")
            (change,) = await store.read_changes("0", DEADLINE_S)
            assert change.member == KEY.text
            assert b"x" in new.command("GET", f"{store.prefix}l:{KEY.text}")


async def test_replica_is_refused_until_it_is_the_primary(tmp_path: Path) -> None:
    """Its latents could be read, but none kept: the sentence says where the name must lead."""
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    with valkey_server(tmp_path / "old") as primary, valkey_server(tmp_path / "new") as replica:
        follow(replica, primary)
        async with opened(replica.url) as store:
            assert (await refusal(store)).startswith("cache.storeUrl: the name leads to a replica")
            replica.command("REPLICAOF", "NO", "ONE")
            await store.put(KEY, b"x")
            assert await store.get(KEY) == b"x"


ELSEWHERE = {
    "READONLY You can't write against a read only replica.": StoreReason.READ_ONLY,
    "UNBLOCKED force unblock from blocking operation, instance state changed": StoreReason.READ_ONLY,
    "NOREPLICAS Not enough good replicas to write.": StoreReason.READ_ONLY,
    "MASTERDOWN Link with MASTER is down": StoreReason.NOT_READY,
    "MOVED 1234 127.0.0.1:1": StoreReason.UNSUPPORTED,
    "ASK 1234 127.0.0.1:1": StoreReason.UNSUPPORTED,
    "CLUSTERDOWN The cluster is down": StoreReason.UNSUPPORTED,
    "NOPERM User t2i has no permissions to run the 'get' command": StoreReason.NOT_PERMITTED,
}


@pytest.mark.parametrize("error", ELSEWHERE)
async def test_error_of_a_wrong_server_drops_every_connection(error: str) -> None:
    """Idle ones too; the next call goes where the name leads by then. Other errors keep what is connected."""
    async with PlayedValkey() as old, PlayedValkey() as new, SlowProxy(old.port) as name, opened(name.url) as store:
        await asyncio.gather(*(store.get(KEY) for _ in range(4)))
        before = old.connections
        old.answer = b"-ERR something else\r\n"
        assert "something else" in await refusal(store)
        name.behind = new.port
        old.answer = f"-{error}\r\n".encode()
        with pytest.raises(StoreUnavailable):
            await store.get(KEY)
        assert store.health.failures[ELSEWHERE[error]] == 1
        store._resting = CircuitBreaker()
        assert await asyncio.gather(*(store.get(KEY) for _ in range(4))) == [None] * 4
        assert (old.connections, new.connections) == (before, 4)


async def test_server_that_loads_its_data_is_left_at_once() -> None:
    """The call itself is asked again on a new connection; only if that one loads, too, it fails."""
    async with PlayedValkey() as old, PlayedValkey() as new, SlowProxy(old.port) as name, opened(name.url) as store:
        await asyncio.gather(*(store.get(KEY) for _ in range(4)))
        old.answer = b"-LOADING Valkey is loading the dataset in memory\r\n"
        assert "cache.storeUrl: the server is not ready" in await refusal(store)
        assert store.health.failures == {StoreReason.NOT_READY: 1}
        name.behind = new.port
        assert await asyncio.gather(*(store.get(KEY) for _ in range(4))) == [None] * 4
        assert new.connections == 4


async def test_connection_in_use_is_dropped_when_its_call_has_ended() -> None:
    """A call under way on another connection gets its answer; then that connection goes, too."""
    async with PlayedValkey() as old, PlayedValkey() as new, SlowProxy(old.port) as name, opened(name.url) as store:
        await asyncio.gather(store.get(KEY), store.get(KEY))
        held = old.gate = asyncio.Event()
        old.asked.clear()
        late = asyncio.create_task(store.get(KEY))
        await old.asked.wait()
        old.gate = asyncio.Event()
        old.gate.set()
        name.behind, old.answer = new.port, b"-READONLY no writes here\r\n"
        with pytest.raises(StoreUnavailable):
            await store.get(KEY)
        held.set()
        assert await late is None
        old.answer = b"-ERR nobody may ask here any more\r\n"
        store._resting = CircuitBreaker()
        assert await asyncio.gather(*(store.get(KEY) for _ in range(4))) == [None] * 4


SERVERS = {
    "cluster mode": ({"mode": "cluster"}, "the server runs in cluster mode, which is not supported"),
    "a Sentinel": ({"mode": "sentinel"}, "the server is a Sentinel"),
    "a replica": ({"role": "replica"}, "the name leads to a replica"),
    "an old server": ({"version": "6.2.7"}, "a server of version 6.2.7: Valkey or Redis 7 or newer is needed"),
}


@pytest.mark.parametrize(("said", "words"), SERVERS.values(), ids=SERVERS.keys())
async def test_unfit_server_is_refused_at_the_start(said: dict[str, str], words: str) -> None:
    """Before any command is asked of it, in a sentence that names the field."""
    async with PlayedValkey() as server, opened(server.url) as store:
        server.greeting.update(said)
        with pytest.raises(StoreUnavailable, match=re.escape(f"cache.storeUrl: {words}")):
            await store.check()


async def test_cluster_is_refused_at_the_start(tmp_path: Path) -> None:
    """A real one, all slots its own: a cluster that grows would move keys away from us."""
    with valkey_server(tmp_path, "--cluster-enabled", "yes") as server:
        server.command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        async with opened(server.url) as store:
            with pytest.raises(StoreUnavailable, match="cluster mode, which is not supported"):
                await store.check()
            assert store.health.failures == {StoreReason.UNSUPPORTED: 1}


def documented() -> list[str]:
    """The words of the line in docs/cache.md that makes the user, for this pool."""
    (line,) = re.findall(r"^ACL SETUSER t2i .*$", DOCS.read_text(), re.MULTILINE)
    return line.replace("PASSWORD", "secret").replace("NAMESPACE/NAME", POOL).split()


RIGHTS = [word for word in documented() if word.startswith("+")]
SIGNED_IN = {USER_VARIABLE: "t2i", PASSWORD_VARIABLE: "secret"}


async def test_user_of_the_docs_can_do_everything(valkey: ValkeyServer) -> None:
    """Each call of the store, by a user who has exactly the documented rights and keys."""
    assert valkey.command(*documented()).startswith(b"+OK")
    valkey.command("SCRIPT", "FLUSH")
    data = encode_record(LatentRecord(KEY, "float16", (1,), b"\0\0", np.array([0.6, 0.8], np.float32), 1.0, "digest"))
    async with opened(valkey.url, SIGNED_IN) as store:
        await store.check()
        await store.put(KEY, data)
        assert await store.get(KEY) == data
        assert await store.count_use(KEY) == 2
        await store.mark([KEY])
        assert (await store.usage()).marked == 1
        assert [entry.entry_id async for page in store.pages() for entry in page] == ["cat"]
        assert len((await store.entries([("alice", "model", "cat")]))[0]) == 4
        assert await store.expire() == 0
        assert (await store.last_change()).number == len(await store.read_changes("0", 0.01))
        await store.delete(KEY)
        for step in range(3):
            await store.put(LatentKey("alice", "model", "dog", step), bytes(LIMITS.capacity_bytes // 2))
        assert await store.purge() == 2
        await store._run("evict", 1)
    assert b"no permissions" in valkey.command("ACL", "DRYRUN", "t2i", "GET", "t2i:{shop/other}:meta")
    assert b"no permissions" in valkey.command("ACL", "DRYRUN", "t2i", "FLUSHALL")


@pytest.mark.parametrize("right", RIGHTS)
async def test_missing_right_is_named_at_the_start(valkey: ValkeyServer, right: str) -> None:
    """Whichever it is, though the call itself would not need it. Once it is granted, the open store serves."""
    valkey.command(*(word for word in documented() if word != right))
    valkey.command("SCRIPT", "FLUSH")
    async with opened(valkey.url, SIGNED_IN) as store:
        said = await refusal(store)
        assert said.startswith("cache.storeSecretRef: the Secret's user ")
        assert right[1:].lower() in said.lower()
        assert store.health.failures == {StoreReason.NOT_PERMITTED: 1}
        valkey.command("ACL", "SETUSER", "t2i", right)
        assert await store.get(KEY) is None


async def test_user_of_other_keys_is_refused(valkey: ValkeyServer) -> None:
    """Rights for another pool's keys are none for ours."""
    valkey.command(*documented(), "resetkeys", "~t2i:{shop/other}:*")
    async with opened(valkey.url, SIGNED_IN) as store:
        assert "cache.storeSecretRef: the Secret's user lacks a permission" in await refusal(store)


async def test_right_that_is_withdrawn_is_named(valkey: ValkeyServer) -> None:
    """While connections are open: the next one says all that is missing, the reason is counted."""
    valkey.command(*documented())
    async with opened(valkey.url, SIGNED_IN) as store:
        await store.put(KEY, b"x")
        valkey.command("ACL", "SETUSER", "t2i", "-get", "-zadd")
        assert "lacks a permission" in await refusal(store)
        assert "may not run GET, ZADD on keys t2i:{shop/paint}:*" in await refusal(store)
        assert store.health.failures[StoreReason.NOT_PERMITTED] == 2
