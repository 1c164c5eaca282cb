"""Who asks: the tenant, from what the caller proved; from a header only in local mode.

    local mode                 the x-t2i-tenant header, without any proof
    clientAuthentication None  everybody is the one tenant `anonymous`; no header is believed
    Token                      whoever the bearer token speaks for
    MutualTLS                  the name in the client certificate

A pool may know its tenants by name; then others are refused, whoever vouches for them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from t2i_runtime.errors import CallerUnknown, UnknownReason
from t2i_runtime.tls.names import ANONYMOUS, AuthContext, is_tenant_name, tenant_of_certificate
from t2i_runtime.tokens import TokenBook

TENANT_HEADER = "x-t2i-tenant"
LOCAL_TENANT = "local"
AUTHORIZATION = "authorization"
_SCHEME = "bearer"
Metadata = Iterable[tuple[str, str | bytes]]
Mode = Literal["Local", "None", "Token", "MutualTLS"]


def no_tokens() -> TokenBook:
    return TokenBook({})


@dataclass(frozen=True, slots=True)
class Identities:
    """How tenants are told. `tokens` gives the book in force; `known` empty = any tenant with a proof."""

    mode: Mode
    tokens: Callable[[], TokenBook] = no_tokens
    known: frozenset[str] = frozenset()

    def tenant_of(self, metadata: Metadata, context: Callable[[], AuthContext]) -> str:
        """The caller's tenant. `context` is asked only where certificates count.

        Raises:
            CallerUnknown: no proof, a wrong one, a malformed name, or a tenant that is not known.
        """
        match self.mode:
            case "Local":
                tenant = _from_header(metadata)
            case "None":
                return ANONYMOUS
            case "Token":
                tenant = self._from_token(metadata)
            case "MutualTLS":
                tenant = tenant_of_certificate(context())
        if self.known and tenant not in self.known:
            text = "this pool does not know the tenant; ask its owner for access"
            raise CallerUnknown(UnknownReason.TENANT_NOT_ALLOWED, text)
        return tenant

    def _from_token(self, metadata: Metadata) -> str:
        given = [_text(value) for name, value in metadata if name == AUTHORIZATION]
        scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        if scheme.lower() != _SCHEME or not token.strip():
            text = "send one bearer token, as metadata `authorization: Bearer TOKEN`"
            raise CallerUnknown(UnknownReason.NO_TOKEN, text)
        tenant = self.tokens().tenant_of(token.strip())
        if tenant is None:
            text = "the bearer token is not valid here, or no longer; ask the pool's owner for a new one"
            raise CallerUnknown(UnknownReason.TOKEN_UNKNOWN, text)
        return tenant


def _from_header(metadata: Metadata) -> str:
    tenant = next((_text(value) for name, value in metadata if name == TENANT_HEADER), LOCAL_TENANT)
    if not is_tenant_name(tenant):
        text = "the tenant's name must be 1 to 128 letters, digits or . _ : / @ -"
        raise CallerUnknown(UnknownReason.NAME_UNCLEAR, text)
    return tenant


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode(errors="replace")
