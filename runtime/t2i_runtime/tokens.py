"""Bearer tokens: a file that says which tenant a token speaks for. It holds SHA-256 digests, never tokens.

    # one a line; several lines for one tenant let a new token overlap with the old one
    sha256:6ac1...e0 acme

Tokens are 256 random bits, so a plain digest cannot be turned back and needs no salt. A presented token is looked up by
a keyed hash of its digest. The key is drawn anew in every process: how long a look-up takes says nothing about what is
in the file.
"""

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from t2i_runtime.errors import TokensUnusable
from t2i_runtime.tls.names import ANONYMOUS, is_tenant_name

FILE = "tokens"
PREFIX = "t2i_"  # lets scanners for leaked secrets find them
MAX_BYTES = 1 << 20
_LINE = re.compile(r"sha256:([0-9a-f]{64})[ \t]+(\S+)")
_KEY = secrets.token_bytes(32)


@dataclass(frozen=True, slots=True)
class TokenBook:
    """Tenant by keyed hash of the token's digest."""

    tenants: Mapping[bytes, str] = field(repr=False)

    def tenant_of(self, token: str) -> str | None:
        """Whom the token speaks for; None if nobody."""
        return self.tenants.get(_keyed(digest_of(token)))

    def __len__(self) -> int:
        return len(self.tenants)


def new_token() -> str:
    """A token that nobody can guess."""
    return PREFIX + secrets.token_urlsafe(32)


def digest_of(token: str) -> str:
    """SHA-256 in hex, as the file has it."""
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()


def line_of(token: str, tenant: str) -> str:
    """The file's line for a token.

    Raises:
        TokensUnusable: not a tenant's name.
    """
    if not is_tenant_name(tenant):
        raise TokensUnusable(f"a tenant is 1 to 128 letters, digits or . _ : / @ -, and not {ANONYMOUS!r}")
    return f"sha256:{digest_of(token)} {tenant}"


def parse_tokens(text: str) -> TokenBook:
    """The file's text; blank lines and those that begin with # say nothing.

    Raises:
        TokensUnusable: a line of another form, or one token for two tenants; the message has its number.
    """
    tenants: dict[bytes, str] = {}
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None or not is_tenant_name(match.group(2)):
            raise TokensUnusable(f"line {number} is not `sha256:HEX TENANT`: make it with t2ictl token TENANT")
        if tenants.setdefault(_keyed(match.group(1)), match.group(2)) != match.group(2):
            raise TokensUnusable(f"line {number}: this token is another tenant's already: remove one of the two")
    return TokenBook(tenants)


def read_tokens(folder: Path) -> TokenBook:
    """The file `tokens` of a mounted Secret. No line at all is fine: nobody may call.

    Raises:
        TokensUnusable: not readable, or see `parse_tokens`.
    """
    path = folder / FILE
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise TokensUnusable(f"{path} is larger than 1 MiB: no Secret is")
        return parse_tokens(data.decode())
    except OSError as error:
        raise TokensUnusable(
            f"{path} cannot be read ({error.strerror}): create the Secret with the key `{FILE}`"
        ) from error
    except UnicodeDecodeError as error:
        raise TokensUnusable(f"{path} is not text: make its lines with t2ictl token TENANT") from error


def _keyed(digest: str) -> bytes:
    return hashlib.blake2b(digest.encode(), key=_KEY, digest_size=32).digest()
