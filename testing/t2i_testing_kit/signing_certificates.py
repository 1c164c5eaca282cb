"""Certificates that C2PA signs with: an authority, and one of its own that may sign. And who reads what they signed."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import encypher_c2pa
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)
SigningKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
MAY_SIGN = ExtendedKeyUsageOID.EMAIL_PROTECTION


@dataclass(frozen=True, slots=True)
class SigningSecret:
    """The files of a kubernetes.io/tls Secret, and who vouches for them (PEM)."""

    files: Mapping[str, bytes]
    authority: bytes


def signing_secret(
    key: SigningKey | None = None, use: x509.ObjectIdentifier = MAY_SIGN, ends: datetime.timedelta = DAY
) -> SigningSecret:
    """A new authority and a certificate by it. `ends`: from now."""
    root, own = ec.generate_private_key(ec.SECP256R1()), key or ec.generate_private_key(ec.SECP256R1())
    root_name, name = _named("test authority"), _named("owner of a pool")
    root_made = _begun(root_name, root_name, root.public_key(), 30 * DAY, ca=True)
    own_made = _begun(name, root_name, own.public_key(), ends, ca=False)
    own_made = own_made.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
    by_root = x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key())
    own_made = own_made.add_extension(by_root, critical=False)
    authority = root_made.sign(root, hashes.SHA256()).public_bytes(Encoding.PEM)
    chain = own_made.sign(root, hashes.SHA256()).public_bytes(Encoding.PEM)
    pem = own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return SigningSecret({"tls.crt": chain + authority, "tls.key": pem}, authority)


def read_signature(data: bytes, mime_type: str, authority: bytes) -> Mapping[str, Any]:
    """What another implementation than the signing one says, which trusts this authority alone and asks nobody."""
    report: Mapping[str, Any] = encypher_c2pa.verify(
        data, mime_type, trust_pem=authority.decode(), no_default_trust=True, telemetry=False, online=False
    )
    return report


def _named(name: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, name), x509.NameAttribute(NameOID.COMMON_NAME, name)]
    )


def _begun(
    name: x509.Name, issuer: x509.Name, public: SigningKey | object, ends: datetime.timedelta, *, ca: bool
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    uses = {
        **dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False),
        **dict.fromkeys(("encipher_only", "decipher_only"), False),
        "digital_signature": not ca,
        "key_cert_sign": ca,
        "crl_sign": ca,
    }
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(public)  # type: ignore[arg-type]
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 3 * DAY)
        .not_valid_after(now + ends)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**uses), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)  # type: ignore[arg-type]
    )
