"""Why the server cannot be used, in words that name the field to change: from the client's error, without any I/O.

    what went wrong                             field
    the server's certificate is not trusted     cache.storeSecretRef   its ca.crt
    ... has expired, is of another name         cache.storeUrl         the server's own
    the server refuses or misses ours           cache.storeSecretRef   its tls.crt and tls.key
    files that cannot be used                   cache.storeSecretRef
    user or password are refused                cache.storeSecretRef

The client library raises errors of its own in OpenSSL's stead, sometimes without a trace of the first, but always with
its words: so words are what is looked at. Errors that are not in the table are told as they are.
"""

import re

from redis.exceptions import AuthenticationError

_EXPIRED = "cache.storeUrl: the server's certificate has expired or is not valid yet: renew it on the server"
_NAME = "cache.storeUrl: the server's certificate does not carry the URL's host: use a name that it carries"
_TRUST = "cache.storeSecretRef: the server's certificate is not signed by an authority of the Secret's ca.crt"
_MISSING = "cache.storeSecretRef: the server asks for a client certificate: put tls.crt and tls.key into the Secret"
_REFUSED = "cache.storeSecretRef: the server refuses the Secret's tls.crt: renew it, signed by who the server trusts"
_FILES = "cache.storeSecretRef: the Secret's ca.crt, tls.crt or tls.key cannot be used"
_IN_CLEAR = "cache.storeUrl: the server does not speak TLS at this port: use its TLS port, or redis://"
_PASSWORD = "cache.storeSecretRef: the server refuses the Secret's username and password"  # noqa: S105 - a sentence
#: OpenSSL's words -> ours; the first that applies.
_TABLE = (
    (r"certificate verify failed: (certificate has expired|certificate is not yet valid)", _EXPIRED),
    (r"certificate verify failed: (Hostname mismatch|IP address mismatch)", _NAME),
    (r"certificate verify failed", _TRUST),
    (r"ALERT_CERTIFICATE_REQUIRED|ALERT_HANDSHAKE_FAILURE", _MISSING),  # the second is TLS 1.2's word
    (r"ALERT_(UNKNOWN_CA|CERTIFICATE_\w+|BAD_CERTIFICATE|UNSUPPORTED_CERTIFICATE)", _REFUSED),
    (r"\[(X509|PEM): |KEY_VALUES_MISMATCH|No such file or directory|Permission denied", _FILES),
    (r"WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE", _IN_CLEAR),
)
_PLACE = re.compile(r" \(_ssl\.c:\d+\)")


def explain(error: BaseException) -> str:
    """A sentence; it never holds a secret."""
    text = _PLACE.sub("", str(error))
    if isinstance(error, AuthenticationError):
        return f"{_PASSWORD} ({text})"
    words = next((words for pattern, words in _TABLE if re.search(pattern, text)), None)
    if words is not None:
        return f"{words} ({text})"
    return f"{type(error).__name__}: {text}" if text else "no answer in time"
