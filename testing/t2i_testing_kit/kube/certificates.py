"""The certificates of a test API server: an authority, the server's, and one for each user it should know.

Key usages and key identifiers are set: Python from 3.13 on refuses certificates without them.
"""

import datetime
import ipaddress
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALID_FOR = datetime.timedelta(days=2)
NO_OTHER_USE = {
    "content_commitment": False,
    "key_encipherment": False,
    "data_encipherment": False,
    "key_agreement": False,
    "encipher_only": False,
    "decipher_only": False,
}


class CertificateFiles(NamedTuple):
    """Of one user."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority whose files lie in one folder: `ca.crt`, and `NAME.crt`, `NAME.key` for each issued."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "t2i-test-authority")])
        usage = x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=True, **NO_OTHER_USE)
        builder = self._builder(self._subject, self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self._write("ca", builder.add_extension(usage, critical=True))

    def issue(
        self, name: str, user: str, groups: tuple[str, ...] = (), addresses: tuple[str, ...] = ()
    ) -> CertificateFiles:
        """A certificate (client, and server on loopback and `addresses`) for a user and their groups; its files."""
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject = x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, user)])
        usage = x509.KeyUsage(digital_signature=True, key_cert_sign=False, crl_sign=False, **NO_OTHER_USE)
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        names = [x509.DNSName("localhost"), x509.DNSName("kubernetes.default.svc")]
        places = [x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", *addresses)]
        builder = (
            self._builder(subject, key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(x509.SubjectAlternativeName([*names, *places]), critical=False)
        )
        self.write_key(name, key)
        return CertificateFiles(self._write(name, builder), self.folder / f"{name}.key")

    def write_key(self, name: str, key: ec.EllipticCurvePrivateKey) -> Path:
        """Write a private key that only we can read."""
        path = self.folder / f"{name}.key"
        path.touch(mode=0o600)
        form, plain = serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
        return path

    def signing_key(self, name: str) -> Path:
        """A bare key, as service account tokens need it."""
        return self.write_key(name, ec.generate_private_key(ec.SECP256R1()))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        ours = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + VALID_FOR)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(ours, critical=False)
        )

    def _write(self, name: str, builder: x509.CertificateBuilder) -> Path:
        path = self.folder / f"{name}.crt"
        path.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return path
