"""A folder with a certificate, as a Secret of type kubernetes.io/tls is mounted: tls.crt, tls.key, and ca.crt.

It is read again when it changes; its end is shown, and an expired one is shouted about.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from t2i_runtime.errors import CertificatesUnusable
from t2i_runtime.tls.reloading import Reloaded

log = logging.getLogger(__name__)
CHAIN, KEY, AUTHORITIES = "tls.crt", "tls.key", "ca.crt"
MAX_BYTES = 1 << 20  # what a Secret can hold at most


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM texts. `authorities` check the other side; empty if nobody is to be checked. `ends_s`: Unix time after which
    the certificate is refused."""

    chain: bytes
    key: bytes = field(repr=False)
    authorities: bytes
    names: tuple[str, ...]
    ends_s: float

    @property
    def expired(self) -> bool:
        """True if nobody accepts it any more."""
        return time.time() > self.ends_s


def read_certificates(folder: Path, checks_peers: bool = True) -> Certificates:
    """What the folder holds now; key and certificate belong together. An expired one is read: the other side judges.

    Without `checks_peers` ca.crt may be missing: certificates of public authorities come without it.

    Raises:
        CertificatesUnusable: a file is missing or not PEM, or the key belongs to another certificate.
    """
    chain, key = _read(folder, CHAIN), _read(folder, KEY)
    first = _parsed(folder, CHAIN, chain)[0]
    authorities = _read(folder, AUTHORITIES) if checks_peers else b""
    if checks_peers:
        _parsed(folder, AUTHORITIES, authorities)
    try:
        private = load_pem_private_key(key, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CertificatesUnusable(f"{folder / KEY} is not a private key in PEM without a passphrase") from error
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if private.public_key().public_bytes(*form) != first.public_key().public_bytes(*form):
        raise CertificatesUnusable(f"{folder / KEY} is not the key of {CHAIN}: put the pair into the Secret together")
    return Certificates(chain, key, authorities, names_of(first), first.not_valid_after_utc.timestamp())


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """Its URI and DNS names."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    uris = found.get_values_for_type(x509.UniformResourceIdentifier)
    return (*uris, *found.get_values_for_type(x509.DNSName))


def _read(folder: Path, name: str) -> bytes:
    path = folder / name
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        text = f"{path} cannot be read ({error.strerror}): create the Secret with {CHAIN}, {KEY} and {AUTHORITIES}"
        raise CertificatesUnusable(text) from error
    if not data or len(data) > MAX_BYTES:
        raise CertificatesUnusable(f"{path} is {'empty' if not data else 'larger than 1 MiB'}: write it anew")
    return data


def _parsed(folder: Path, name: str, data: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise CertificatesUnusable(f"{folder / name} holds no certificate in PEM: write it anew") from error


@dataclass(frozen=True, slots=True)
class Shown:
    """Where it is shown: whether each reading is in force, and the certificate's end (Unix seconds)."""

    on_outcome: Callable[[bool], None]
    on_end: Callable[[float], None]


def follow_certificates(
    field: str, folder: Path, read: Callable[[Path], Certificates], shown: Shown
) -> Reloaded[Certificates]:
    """What the Secret of the pool's `field` holds, mounted at `folder`.

    Raises:
        CertificatesUnusable: a file is missing or unusable; the message names the field.
    """
    certificates = Reloaded(field, folder, read, shown.on_outcome)

    def show(current: Certificates) -> None:
        shown.on_end(current.ends_s)
        if current.expired:
            log.error("%s: the certificate has expired; new connections will fail until it is renewed", field)

    show(certificates.current)
    certificates.on_change(show)
    return certificates
