"""From a URL and the environment to a store: address in the URL, secrets never in it.

redis://HOST[:PORT][/DATABASE], rediss:// with TLS. A URL is in pod arguments and pool documents, so a password in it is
refused; it comes from `T2I_STORE_PASSWORD` (and `T2I_STORE_USER`). `T2I_STORE_TLS_DIR` names a folder: `ca.crt` to
trust instead of the system's authorities, `tls.crt` and `tls.key` to show.
"""

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as ConnectionFailed

from t2i_cache.errors import StoreUrlError
from t2i_cache.stores.protocol import StoreLimits
from t2i_cache.stores.redis.greeting import make_greeting
from t2i_cache.stores.redis.store import CALL_LIMIT_S, RedisStore, key_prefix

PASSWORD_VARIABLE = "T2I_STORE_PASSWORD"  # noqa: S105 - the variable's name
USER_VARIABLE = "T2I_STORE_USER"
TLS_VARIABLE = "T2I_STORE_TLS_DIR"
AUTHORITIES, CHAIN, KEY = "ca.crt", "tls.crt", "tls.key"
DEFAULT_PORT = 6379
MAX_CONNECTIONS = 16


def open_redis(url: str, pool: str, limits: StoreLimits, environment: Mapping[str, str] | None = None) -> RedisStore:
    """A store of this URL; it connects when it is first used.

    Raises:
        StoreUrlError: no host, a password in the URL, a bad port or database, or certificates that are not there.
    """
    parts = urlsplit(url)
    given = os.environ if environment is None else environment
    host, port, database = _place(parts)
    secured: dict[str, Any] = {"folder": _certificates(given)} if parts.scheme == "rediss" else {}
    connections = BlockingConnectionPool(
        MAX_CONNECTIONS,
        CALL_LIMIT_S,
        FreshTlsConnection if parts.scheme == "rediss" else Connection,
        host=host,
        port=port,
        db=database,
        username=given.get(USER_VARIABLE) or None,
        password=given.get(PASSWORD_VARIABLE) or None,
        protocol=2,
        socket_connect_timeout=CALL_LIMIT_S,
        socket_keepalive=True,
        # a connection that a restarted server closed is replaced once; a server that is gone is not waited for
        retry=Retry(NoBackoff(), 1, (ConnectionFailed,)),
        redis_connect_func=make_greeting(key_prefix(pool)),
        **secured,
    )
    return RedisStore(Redis(connection_pool=connections), pool, limits)


def _place(parts: SplitResult) -> tuple[str, int, int]:
    if parts.username or parts.password:
        raise StoreUrlError(
            f"cache.storeUrl must not hold a user or a password: put them into {USER_VARIABLE} and "
            f"{PASSWORD_VARIABLE} (in a cluster: the Secret that cache.storeSecretRef names)"
        )
    database = parts.path.strip("/") or "0"
    try:
        port = parts.port or DEFAULT_PORT
    except ValueError as error:
        raise StoreUrlError("cache.storeUrl: the port must be a number from 1 to 65535") from error
    if not parts.hostname or not database.isdigit() or parts.query:
        raise StoreUrlError("cache.storeUrl must be redis://host:port or rediss://host:port, with /NUMBER at most")
    return parts.hostname, port, int(database)


def _certificates(given: Mapping[str, str]) -> Path | None:
    """The folder of the certificates; None = there is none."""
    folder = given.get(TLS_VARIABLE)
    if not folder:
        return None
    there = {name for name in (AUTHORITIES, CHAIN, KEY) if (Path(folder) / name).is_file()}
    if not there or (CHAIN in there) != (KEY in there):
        raise StoreUrlError(
            f"{TLS_VARIABLE}={folder} must hold ca.crt, or tls.crt with tls.key, or all three (in a cluster: the "
            "Secret that cache.storeSecretRef names)"
        )
    return Path(folder)


class FreshTlsConnection(SSLConnection):
    """TLS with the Secret's files as they are at that moment.

    The client library keeps the files of a connection's first opening for all later ones. It also trusts the system's
    authorities beside ours. Here each opening reads the folder anew, so renewed certificates need no restart. If there
    is a ca.crt, nothing else is trusted. `folder` None: the system's authorities, and no certificate to show.
    """

    def __init__(self, folder: Path | None = None, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._folder = folder

    def _connection_arguments(self) -> Mapping[str, Any]:
        return {**Connection._connection_arguments(self), "ssl": make_context(self._folder)}


def make_context(folder: Path | None) -> ssl.SSLContext:
    """Certificates and host names are checked, always.

    Raises:
        OSError, ssl.SSLError: a file is missing or holds something else.
    """
    there = {name for name in (AUTHORITIES, CHAIN, KEY) if folder is not None and (folder / name).is_file()}
    context = ssl.create_default_context(cafile=str(folder / AUTHORITIES) if folder and AUTHORITIES in there else None)
    if folder is not None and there & {CHAIN, KEY}:
        context.load_cert_chain(str(folder / CHAIN), str(folder / KEY))
    return context
