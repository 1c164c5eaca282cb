"""How a caller proves who it is: certificates and a token from files, or a bare name in local mode."""

from dataclasses import dataclass, replace
from pathlib import Path

import grpc

from t2i_runtime.grpc_options import client_options
from t2ictl.cluster import PoolName
from t2ictl.errors import InputInvalid

TENANT_HEADER = "x-t2i-tenant"


@dataclass(frozen=True, slots=True)
class Proof:
    """Files are read at once by `load_proof`. `tls`: encrypt, and check the gateway by `ca` (None: the system's)."""

    tenant: str = ""
    tls: bool = False
    ca: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = None
    token: str = ""
    server_name: str = ""

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        named = ((TENANT_HEADER, self.tenant),) if self.tenant else ()
        return (*named, ("authorization", f"Bearer {self.token}")) if self.token else named

    def for_pool(self, pool: str) -> "Proof":
        """With the name that gateways of a pool (`NAMESPACE/NAME`) have in their certificate, unless one is given."""
        if not pool or self.server_name:
            return self
        name = PoolName.parse(pool)
        return replace(self, server_name=f"{name.name}-gateway.{name.namespace}.svc")

    def open_channel(self, address: str) -> grpc.aio.Channel:
        """A channel to a gateway. A proxy of the environment is used for gateways on other machines only."""
        options = client_options(address)
        if not self.tls:
            return grpc.aio.insecure_channel(address, options=options)
        credentials = grpc.ssl_channel_credentials(self.ca, self.key, self.certificate)
        named = [("grpc.ssl_target_name_override", self.server_name)] if self.server_name else []
        return grpc.aio.secure_channel(address, credentials, options=[*options, *named])


@dataclass(frozen=True, slots=True)
class ProofOptions:
    """As the command line has them. Any of the files means TLS."""

    tenant: str = ""
    tls: bool = False
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    token_file: Path | None = None
    server_name: str = ""


def load_proof(options: ProofOptions) -> Proof:
    """Read the files.

    Raises:
        InputInvalid: one is missing or empty, or a certificate comes without its key.
    """
    if (options.cert is None) != (options.key is None):
        raise InputInvalid("--cert and --key belong together: give both, or neither")
    files = (options.ca, options.cert, options.key, options.token_file)
    token = _read("--token-file", options.token_file)
    return Proof(
        tenant=options.tenant,
        tls=options.tls or any(path is not None for path in files),
        ca=_read("--ca", options.ca),
        certificate=_read("--cert", options.cert),
        key=_read("--key", options.key),
        token=_one_word(token.decode(errors="replace")) if token is not None else "",
        server_name=options.server_name,
    )


def _one_word(text: str) -> str:
    words = text.split()
    if len(words) != 1:
        raise InputInvalid("--token-file must hold one token and nothing else")
    return words[0]


def _read(flag: str, path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputInvalid(f"{flag}: {path} cannot be read: {error.strerror}") from error
    if not data.strip():
        raise InputInvalid(f"{flag}: {path} is empty")
    return data
