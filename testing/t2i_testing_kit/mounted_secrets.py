"""Certificates for tests, and Secrets as the kubelet mounts them: all files of a folder are swapped in one rename."""

import datetime
import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)
_numbers = itertools.count()


def pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS 8, as cert-manager writes it."""
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)


@dataclass(frozen=True)
class TestAuthority:
    """An authority of its own; `issue` gives the files of a kubernetes.io/tls Secret."""

    __test__ = False
    name: str
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    @property
    def pem(self) -> bytes:
        """Its certificate."""
        return self._signed(self._subject, self.key.public_key(), (), (-DAY, 30 * DAY), ca=True)

    @property
    def _subject(self) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])

    def issue(
        self, *names: str, ends: datetime.timedelta = DAY, trusts: Sequence["TestAuthority"] = ()
    ) -> dict[str, bytes]:
        """A certificate for URI names (with ://) and DNS names; ca.crt trusts this authority, or those given."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "not-a-tenant")])
        chain = self._signed(subject, key.public_key(), names, (-2 * DAY, ends))
        roots = b"".join(one.pem for one in trusts or (self,))
        return {"tls.crt": chain, "tls.key": pem_of(key), "ca.crt": roots}

    def _signed(
        self,
        subject: x509.Name,
        public: ec.EllipticCurvePublicKey,
        names: Sequence[str],
        span: tuple[datetime.timedelta, datetime.timedelta],
        ca: bool = False,
    ) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + span[0])
            .not_valid_after(now + span[1])
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if names:
            kinds = [x509.UniformResourceIdentifier(name) if "://" in name else x509.DNSName(name) for name in names]
            builder = builder.add_extension(x509.SubjectAlternativeName(kinds), critical=False)
        if not ca:
            uses = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
            builder = builder.add_extension(uses, critical=False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def mount(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Mount these files at `folder`, or swap what is mounted there."""
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / f"..{next(_numbers):06}"
    fresh.mkdir()
    for name, data in files.items():
        (fresh / name).write_bytes(data)
    (folder / "..data_tmp").symlink_to(fresh.name)
    os.replace(folder / "..data_tmp", folder / "..data")
    for name in files:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(Path("..data") / name)
    return folder
