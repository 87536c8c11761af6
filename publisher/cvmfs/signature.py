"""The two ways in which a repository is signed. Repository format, section 3.1.

The manifest carries an ordinary signature with SHA-1: RSASSA-PKCS1-v1_5, or ECDSA if the certificate holds a key on an elliptic
curve. The whitelist carries the bare PKCS#1 type 1 block around the text, without the usual digest information, by RSA only; no
library offers that, so it is done with integers here. Both sign the text of a hash.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA1

RepositoryKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
"""What may sign manifests. CernVM-FS takes no others: it refuses Ed25519."""
CertifiedKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
"""The public part, as a certificate holds it."""

_MINIMUM_PADDING = 8


def sign_manifest(key: RepositoryKey, text: bytes) -> bytes:
    """Signature of the certificate's key over a hash text."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(text, ec.ECDSA(SHA1()))  # noqa: S303 - the format's
    return key.sign(text, PKCS1v15(), SHA1())  # noqa: S303 - the format's


def verify_manifest(key: CertifiedKey, text: bytes, signature: bytes) -> bool:
    """Whether the certificate's key signed the hash text."""
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, text, ec.ECDSA(SHA1()))  # noqa: S303 - the format's
        else:
            key.verify(signature, text, PKCS1v15(), SHA1())  # noqa: S303 - the format's
    except InvalidSignature:
        return False
    return True


def sign_whitelist(key: rsa.RSAPrivateKey, text: bytes) -> bytes:
    """Signature of the master key over a hash text: the private operation on the padded text itself."""
    numbers = key.private_numbers()
    size = (key.key_size + 7) // 8
    message = int.from_bytes(_pad(text, size), "big")
    part_p = pow(message, numbers.dmp1, numbers.p)
    part_q = pow(message, numbers.dmq1, numbers.q)
    result = part_q + numbers.q * ((part_p - part_q) * numbers.iqmp % numbers.p)
    return result.to_bytes(size, "big")


def verify_whitelist(key: rsa.RSAPublicKey, text: bytes, signature: bytes) -> bool:
    """Whether the master key signed the hash text."""
    numbers = key.public_numbers()
    size = (key.key_size + 7) // 8
    value = int.from_bytes(signature, "big")
    if len(signature) != size or value >= numbers.n:
        return False
    return pow(value, numbers.e, numbers.n).to_bytes(size, "big") == _pad(text, size)


def _pad(text: bytes, size: int) -> bytes:
    filler = size - 3 - len(text)
    if filler < _MINIMUM_PADDING:
        raise ValueError(f"an RSA key of {size * 8} bits is too short to sign {len(text)} bytes")
    return b"\x00\x01" + b"\xff" * filler + b"\x00" + text
