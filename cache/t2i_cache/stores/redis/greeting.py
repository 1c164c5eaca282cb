"""What each new connection asks before it is used: is this the server that the pool needs, and may we do our work here?

A name may lead to another server than yesterday, and a user's rights may change. So it is asked at every connection,
by commands that every user may run: HELLO tells kind, role and version; one script tells what the user may not run. A
server that is refused costs a connection, which is closed at once. The sentence of the error names what is missing.
"""

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import NoPermissionError, NoScriptError, RedisError, ResponseError

from t2i_cache.stores.health import StoreReason
from t2i_cache.stores.redis.scripts import PROBE, read_script

FIRST_VERSION = 7  # its scripts have flags
_SCRIPT = read_script(PROBE)
_SHA = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()
_CLUSTER = "cache.storeUrl: the server runs in cluster mode, which is not supported: use one without cluster mode"
_SENTINEL = "cache.storeUrl: the server is a Sentinel: name the primary itself, or a name that follows it"
_REPLICA = "cache.storeUrl: the name leads to a replica, which takes no writes: it must lead to the primary"


class ServerRefused(RedisError):
    """The server answers, and is not one that the store can use."""

    def __init__(self, reason: StoreReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


Greet = Callable[[AbstractConnection], Awaitable[None]]


def make_greeting(prefix: str) -> Greet:
    """For `redis_connect_func`: sign in, then ask. `prefix` begins the pool's keys."""

    async def greet(connection: AbstractConnection) -> None:
        try:
            await connection.on_connect()
            _check_server(await _hello(connection))
            missing = await _missing_rights(connection, prefix)
        except BaseException:
            # given up half way: answers that still come must never be read as those of a later call
            await connection.disconnect(nowait=True)
            raise
        if missing:
            raise ServerRefused(StoreReason.NOT_PERMITTED, missing_rights(missing, prefix))

    return greet


def missing_rights(commands: list[str], prefix: str) -> str:
    return (
        f"cache.storeSecretRef: the Secret's user may not run {', '.join(commands)} on keys {prefix}*: grant what "
        "docs/cache.md lists"
    )


async def _hello(connection: AbstractConnection) -> dict[str, str]:
    try:
        reply = await _ask(connection, "HELLO", 2)
    except NoPermissionError:
        raise
    except ResponseError as error:
        raise ServerRefused(StoreReason.UNSUPPORTED, _too_old("that does not know HELLO")) from error
    words = [part.decode() if isinstance(part, bytes) else str(part) for part in reply]
    return dict(zip(words[::2], words[1::2], strict=False))


def _check_server(said: dict[str, str]) -> None:
    mode, version = said.get("mode", ""), said.get("version", "")
    if mode == "cluster":
        raise ServerRefused(StoreReason.UNSUPPORTED, _CLUSTER)
    if mode == "sentinel":
        raise ServerRefused(StoreReason.UNSUPPORTED, _SENTINEL)
    major = version.split(".")[0]
    if major.isdigit() and int(major) < FIRST_VERSION:
        raise ServerRefused(StoreReason.UNSUPPORTED, _too_old(f"of version {version}"))
    if said.get("role") in ("replica", "slave"):
        raise ServerRefused(StoreReason.READ_ONLY, _REPLICA)


def _too_old(which: str) -> str:
    return f"cache.storeUrl: a server {which}: Valkey or Redis {FIRST_VERSION} or newer is needed"


async def _missing_rights(connection: AbstractConnection, prefix: str) -> list[str]:
    try:
        found = await _ask(connection, "EVALSHA", _SHA, 1, prefix)
    except NoScriptError:
        await _ask(connection, "SCRIPT LOAD", _SCRIPT)
        found = await _ask(connection, "EVALSHA", _SHA, 1, prefix)
    return [name.decode() for name in found]


async def _ask(connection: AbstractConnection, *words: str | int) -> Any:
    await connection.send_command(*words, check_health=False)
    return await connection.read_response()
