"""Why the server cannot be used, in words that name the field to change: from the client's error, without any I/O.

    what went wrong                             field
    the server's certificate is not trusted     cache.storeSecretRef   its ca.crt
    ... has expired, is of another name         cache.storeUrl         the server's own
    the server refuses or misses ours           cache.storeSecretRef   its tls.crt and tls.key
    files that cannot be used                   cache.storeSecretRef
    user or password are refused                cache.storeSecretRef
    the user may not run a command              cache.storeSecretRef
    a replica, a cluster, still loading         cache.storeUrl         it leads to another server than is needed

The client library raises errors of its own in OpenSSL's stead. Sometimes these keep no trace of the first error, but
they always keep its words: so words are what is looked at. Errors that are not in the table are told as they are.
"""

import re
from dataclasses import dataclass

from redis.exceptions import AuthenticationError, NoPermissionError
from redis.exceptions import ConnectionError as ConnectionFailed
from redis.exceptions import TimeoutError as AnswerLate

from t2i_cache.stores.health import StoreReason
from t2i_cache.stores.redis.greeting import ServerRefused

_EXPIRED = "cache.storeUrl: the server's certificate has expired or is not valid yet: renew it on the server"
_NAME = "cache.storeUrl: the server's certificate does not carry the URL's host: use a name that it carries"
_TRUST = "cache.storeSecretRef: the server's certificate is not signed by an authority of the Secret's ca.crt"
_MISSING = "cache.storeSecretRef: the server asks for a client certificate: put tls.crt and tls.key into the Secret"
_REFUSED = "cache.storeSecretRef: the server refuses the Secret's tls.crt: renew it, signed by who the server trusts"
_FILES = "cache.storeSecretRef: the Secret's ca.crt, tls.crt or tls.key cannot be used"
_IN_CLEAR = "cache.storeUrl: the server does not speak TLS at this port: use its TLS port, or redis://"
_PASSWORD = "cache.storeSecretRef: the server refuses the Secret's username and password"  # noqa: S105 - a sentence
_REPLICA = "cache.storeUrl: the server takes no writes: the name must lead to the primary"
_ALONE = "cache.storeUrl: the server takes no writes while too few replicas follow it"
_LOADING = "cache.storeUrl: the server is not ready: it loads its data, or has lost its primary"
_CLUSTER = "cache.storeUrl: the server is one of a cluster, which is not supported: use one without cluster mode"
_RIGHTS = "cache.storeSecretRef: the Secret's user lacks a permission: grant what docs/cache.md lists"


@dataclass(frozen=True, slots=True)
class Explained:
    """A reason for a metric and a sentence that never holds a secret.

    `elsewhere`: the server answers, but it is not the one that serves us: connections to it are of no use any more.
    """

    reason: StoreReason
    sentence: str
    elsewhere: bool = False


#: OpenSSL's words -> ours; the first that applies.
_TLS = (
    (r"certificate verify failed: (certificate has expired|certificate is not yet valid)", _EXPIRED),
    (r"certificate verify failed: (Hostname mismatch|IP address mismatch)", _NAME),
    (r"certificate verify failed", _TRUST),
    (r"ALERT_CERTIFICATE_REQUIRED|ALERT_HANDSHAKE_FAILURE", _MISSING),  # the second is TLS 1.2's word
    (r"ALERT_(UNKNOWN_CA|CERTIFICATE_\w+|BAD_CERTIFICATE|UNSUPPORTED_CERTIFICATE)", _REFUSED),
    (r"\[(X509|PEM): |KEY_VALUES_MISMATCH|No such file or directory|Permission denied", _FILES),
    (r"WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE", _IN_CLEAR),
)
#: The server's own first word -> reason and ours.
_ELSEWHERE = {
    "READONLY": (StoreReason.READ_ONLY, _REPLICA),
    "UNBLOCKED": (StoreReason.READ_ONLY, _REPLICA),  # it became a replica while we waited for changes
    "NOREPLICAS": (StoreReason.READ_ONLY, _ALONE),
    "LOADING": (StoreReason.NOT_READY, _LOADING),
    "MASTERDOWN": (StoreReason.NOT_READY, _LOADING),
    "MOVED": (StoreReason.UNSUPPORTED, _CLUSTER),
    "ASK": (StoreReason.UNSUPPORTED, _CLUSTER),
    "TRYAGAIN": (StoreReason.UNSUPPORTED, _CLUSTER),
    "CROSSSLOT": (StoreReason.UNSUPPORTED, _CLUSTER),
    "CLUSTERDOWN": (StoreReason.UNSUPPORTED, _CLUSTER),
    "NOPERM": (StoreReason.NOT_PERMITTED, _RIGHTS),
}
_PLACE = re.compile(r" \(_ssl\.c:\d+\)")
_SCRIPT = re.compile(r" script: [0-9a-f]{40}, on @\w+:\d+\.$")


def explain(error: BaseException) -> Explained:
    text = _SCRIPT.sub("", _PLACE.sub("", str(error)))
    if isinstance(error, ServerRefused):
        return Explained(error.reason, text, elsewhere=True)
    if isinstance(error, AuthenticationError):
        return Explained(StoreReason.CREDENTIALS, f"{_PASSWORD} ({text})")
    word = _first_word(error, text)
    if word in _ELSEWHERE:
        reason, sentence = _ELSEWHERE[word]
        return Explained(reason, f"{sentence} ({text})", elsewhere=True)
    sentence = next((words for pattern, words in _TLS if re.search(pattern, text)), "")
    if sentence:
        return Explained(StoreReason.CERTIFICATES, f"{sentence} ({text})")
    return Explained(_plain_reason(error), f"{type(error).__name__}: {text}" if text else "no answer in time")


def _first_word(error: BaseException, text: str) -> str:
    """The server's word for its error. The client keeps some apart from the text; a script's has none."""
    if isinstance(error, NoPermissionError) or text.startswith("ACL failure in script"):
        return "NOPERM"
    code: str | None = getattr(error, "status_code", None)
    return code or text.split(" ")[0]


def _plain_reason(error: BaseException) -> StoreReason:
    if isinstance(error, TimeoutError | AnswerLate):
        return StoreReason.NO_ANSWER
    return StoreReason.UNREACHABLE if isinstance(error, ConnectionFailed | OSError) else StoreReason.FAILED
