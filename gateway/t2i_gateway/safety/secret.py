"""What a gateway shows to a safety endpoint, and what it checks the endpoint by: a mounted Secret."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path

from t2i_runtime.errors import CertificatesUnusable, TokensUnusable
from t2i_runtime.tls.certificates import AUTHORITIES, CHAIN, KEY

TOKEN = "token"  # noqa: S105 - a file's name
MAX_TOKEN_BYTES = 16 << 10


@dataclass(frozen=True, slots=True)
class EndpointSecret:
    """`token` is empty if none is sent."""

    token: str = field(repr=False)
    context: ssl.SSLContext


def public_secret() -> EndpointSecret:
    """Nothing is shown, and public authorities vouch for the endpoint."""
    return EndpointSecret("", ssl.create_default_context())


def read_endpoint_secret(folder: Path) -> EndpointSecret:
    """What the folder holds now.

    Raises:
        CertificatesUnusable, TokensUnusable: nothing is there, or a file cannot be used; the message names it.
    """
    if not any((folder / name).is_file() for name in (TOKEN, AUTHORITIES, CHAIN)):
        text = f"{folder} holds none of {TOKEN}, {AUTHORITIES} and {CHAIN}: create the Secret with one of these keys"
        raise CertificatesUnusable(text)
    return EndpointSecret(_token(folder / TOKEN), _context(folder))


def _token(path: Path) -> str:
    if not path.exists():
        return ""
    try:
        with path.open("rb") as file:
            token = file.read(MAX_TOKEN_BYTES + 1).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise TokensUnusable(f"{path} cannot be read, or is no text: write it anew") from error
    if not token or len(token) > MAX_TOKEN_BYTES or not token.isprintable() or " " in token:
        raise TokensUnusable(f"{path} is not a token: one line of at most 16 KiB without spaces; write it anew")
    return token


def _context(folder: Path) -> ssl.SSLContext:
    try:
        authorities = folder / AUTHORITIES
        context = ssl.create_default_context(cafile=str(authorities) if authorities.exists() else None)
    except (ssl.SSLError, OSError) as error:
        raise CertificatesUnusable(f"{folder / AUTHORITIES} holds no certificate in PEM: write it anew") from error
    if (folder / CHAIN).exists():
        try:
            context.load_cert_chain(folder / CHAIN, folder / KEY, password=lambda: b"")
        except (ssl.SSLError, OSError, ValueError) as error:
            text = f"{folder} needs {CHAIN} and its {KEY} without a passphrase: put the pair into the Secret together"
            raise CertificatesUnusable(text) from error
    return context
