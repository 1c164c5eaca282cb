"""TLS to the server, with the Secret's files as they are at that moment.

The client library keeps the files of a connection's first opening for all its later ones, and trusts the system's
authorities beside ours. Here each opening reads the folder anew, so that renewed certificates need no restart, and a
ca.crt is all that is trusted.
"""

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from redis.asyncio import Connection, SSLConnection

AUTHORITIES, CHAIN, KEY = "ca.crt", "tls.crt", "tls.key"


class FreshTlsConnection(SSLConnection):
    """See the module. `folder` None: the system's authorities, and no certificate to show."""

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
