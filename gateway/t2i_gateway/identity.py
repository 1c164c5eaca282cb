"""Who asks: the tenant, from the connection's authenticated identity; from a header only in local mode."""

import re
from collections.abc import Iterable, Mapping

from t2i_gateway.errors import TenantUnknown

TENANT_HEADER = "x-t2i-tenant"
LOCAL_TENANT = "local"
_NAME = re.compile(r"[A-Za-z0-9._:/@-]{1,128}")
Metadata = Iterable[tuple[str, str | bytes]]


def tenant_of(
    metadata: Metadata, auth_context: Mapping[str, Iterable[bytes]], local: bool, known: frozenset[str]
) -> str:
    """The tenant's name; `known` empty = any authenticated one.

    Raises:
        TenantUnknown: no identity, a malformed name, or one that is not known.
    """
    tenant = _from_header(metadata) if local else _from_certificate(auth_context)
    if not _NAME.fullmatch(tenant):
        raise TenantUnknown("the tenant's name must be 1 to 128 letters, digits or . _ : / @ -")
    if known and tenant not in known:
        raise TenantUnknown("this pool does not know the tenant; ask its owner for access")
    return tenant


def _from_header(metadata: Metadata) -> str:
    for name, value in metadata:
        if name == TENANT_HEADER:
            return value if isinstance(value, str) else value.decode(errors="replace")
    return LOCAL_TENANT


def _from_certificate(auth_context: Mapping[str, Iterable[bytes]]) -> str:
    for name in ("x509_subject_alternative_name", "x509_common_name"):
        for value in auth_context.get(name, ()):
            return value.decode(errors="replace")
    raise TenantUnknown("connect with a client certificate: the tenant is its subject")
