"""Names in certificates: which tenant a client certificate speaks for, and whether a peer is who it must be.

    tenant = the certificate's only URI name (a SPIFFE ID, such as spiffe://example.org/tenant/acme),
             else, if it has no URI name, its only DNS name

The common name is never read: any authority's policy may let its holder choose it. Several names of the deciding kind
are refused rather than guessed from. gRPC has verified chain and dates before any of this is asked.
"""

import re
from collections.abc import Iterable, Mapping

from cryptography import x509

from t2i_runtime.errors import CallerUnknown, UnknownReason

#: gRPC's view of the connection: property -> values.
AuthContext = Mapping[str, Iterable[bytes]]
ANONYMOUS = "anonymous"  # all callers of a pool that does not ask who they are; nobody else's name
_NAME = re.compile(r"[A-Za-z0-9._:/@-]{1,128}")
_URI, _DNS = "peer_uri", "peer_dns"


def is_tenant_name(name: str) -> bool:
    """True if a tenant may be called so."""
    return name != ANONYMOUS and _NAME.fullmatch(name) is not None


def tenant_of_certificate(context: AuthContext) -> str:
    """Whose certificate the caller has shown.

    Raises:
        CallerUnknown: no certificate, no name, several, or one that no tenant can have.
    """
    if not any(True for _ in context.get("x509_subject", ())):
        raise CallerUnknown(UnknownReason.NO_CERTIFICATE, "connect with a client certificate: its name is the tenant")
    names = _values(context, _URI) or _values(context, _DNS)
    if len(names) != 1:
        text = "the client certificate must have exactly one URI name, or no URI name and exactly one DNS name"
        raise CallerUnknown(UnknownReason.NAME_UNCLEAR, text)
    if not is_tenant_name(names[0]):
        text = "the name in the client certificate must be 1 to 128 letters, digits or . _ : / @ -"
        raise CallerUnknown(UnknownReason.NAME_UNCLEAR, text)
    return names[0]


def auth_context_of(certificate: x509.Certificate) -> AuthContext:
    """A verified certificate as gRPC would tell of it."""
    context = {"x509_subject": [certificate.subject.rfc4514_string().encode()]}
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return context
    uris = found.get_values_for_type(x509.UniformResourceIdentifier)
    names = found.get_values_for_type(x509.DNSName)
    return {**context, _URI: [uri.encode() for uri in uris], _DNS: [name.encode() for name in names]}


def has_name(context: AuthContext, name: str) -> bool:
    """True if the peer's certificate carries this very URI or DNS name."""
    return name in (*_values(context, _URI), *_values(context, _DNS))


def _values(context: AuthContext, kind: str) -> list[str]:
    return [value.decode(errors="replace") for value in context.get(kind, ())]
