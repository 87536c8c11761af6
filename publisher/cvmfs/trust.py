"""The chain of trust: master key, whitelist, certificate, manifest. Repository format, sections 3 to 3.2."""

from __future__ import annotations

from datetime import datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from publisher.cvmfs import signature
from publisher.cvmfs.hash import ContentHash
from publisher.cvmfs.letter import Letter
from publisher.cvmfs.manifest import MANIFEST_NAME, RepositoryManifest
from publisher.cvmfs.whitelist import WHITELIST_NAME, Whitelist
from publisher.errors import RepositoryDamaged, Untrusted


def verified_whitelist(data: bytes, fqrn: str, master_key: rsa.RSAPublicKey, now: datetime | None) -> Whitelist:
    """Read a whitelist that the master key signed for this repository; None as time spares the question whether it expired.

    Raises RepositoryDamaged, Untrusted.
    """
    letter = Letter.parse(data, WHITELIST_NAME)
    if not signature.verify_whitelist(master_key, letter.signed_text, letter.signature):
        raise Untrusted(
            f"the whitelist of {fqrn} is not signed by the master key at hand; compare the public key with the repository's",
            WHITELIST_NAME,
        )
    whitelist = Whitelist.parse(letter.payload)
    if whitelist.fqrn != fqrn:
        raise Untrusted(f"the whitelist is for the repository {whitelist.fqrn}, not {fqrn}", WHITELIST_NAME)
    if now is not None and not whitelist.is_valid_at(now):
        raise Untrusted(
            f"the whitelist of {fqrn} expired at {whitelist.expires:%Y-%m-%d %H:%M} UTC; it must be signed again (resign)",
            WHITELIST_NAME,
        )
    return whitelist


def read_manifest(data: bytes, fqrn: str) -> tuple[Letter, RepositoryManifest]:
    """Take a manifest apart, which `verify_manifest` has still to trust. Raises RepositoryDamaged, Untrusted for another name."""
    letter = Letter.parse(data, MANIFEST_NAME)
    manifest = RepositoryManifest.parse(letter.payload)
    if manifest.fqrn != fqrn:
        raise Untrusted(f"the manifest is of the repository {manifest.fqrn}, not {fqrn}", MANIFEST_NAME)
    return letter, manifest


def verify_manifest(letter: Letter, certificate_pem: bytes, whitelist: Whitelist) -> x509.Certificate:
    """Check that a whitelisted certificate signed the manifest, and return it. Raises RepositoryDamaged, Untrusted."""
    certificate = read_certificate(certificate_pem, whitelist.fqrn)
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise RepositoryDamaged(f"the signing certificate of {whitelist.fqrn} is malformed: {error}") from error
    if not isinstance(key, signature.CertifiedKey):
        raise Untrusted(f"the signing certificate of {whitelist.fqrn} holds neither an RSA key nor one on an elliptic curve")
    if not is_listed(certificate, whitelist):
        raise Untrusted(f"the certificate that signed the manifest of {whitelist.fqrn} is not in the whitelist", WHITELIST_NAME)
    if not signature.verify_manifest(key, letter.signed_text, letter.signature):
        raise Untrusted(f"the signature of the manifest of {whitelist.fqrn} is wrong", MANIFEST_NAME)
    return certificate


def read_certificate(pem: bytes, fqrn: str) -> x509.Certificate:
    """A certificate in PEM form. Raises RepositoryDamaged."""
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise RepositoryDamaged(f"the signing certificate of {fqrn} is malformed: {error}") from error


def is_listed(certificate: x509.Certificate, whitelist: Whitelist) -> bool:
    """Whether a whitelist lets this certificate sign manifests."""
    return any(fingerprint(certificate, known) == known for known in whitelist.fingerprints)


def fingerprint(certificate: x509.Certificate, like: ContentHash | None = None) -> ContentHash:
    """Hash of the certificate in DER form, by the algorithm of another fingerprint or by SHA-1."""
    der = certificate.public_bytes(Encoding.DER)
    return ContentHash.of(der, like.algorithm) if like else ContentHash.of(der)
