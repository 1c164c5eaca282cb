"""Certificates that are followed: read again when they change, their end shown, an expired one shouted about."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from t2i_runtime.tls.certificates import Certificates
from t2i_runtime.tls.reloading import Reloaded

log = logging.getLogger(__name__)


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
