"""The keys of a repository: the master key that clients trust, the repository key and its certificate.

Repository format, section 3.3.

Files in the key directory (0700), by the names that CernVM-FS uses: `<fqrn>.masterkey` and `<fqrn>.key` (0600), `<fqrn>.pub` and
`<fqrn>.crt`. The master key can be kept elsewhere; then the whitelist has to be renewed where it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from cryptography.x509.oid import NameOID

from mirror.errors import InvalidInput, NotFound
from publisher.cvmfs import letter, signature
from publisher.cvmfs.hash import ContentHash
from publisher.cvmfs.signature import RepositoryKey
from publisher.cvmfs.trust import fingerprint
from publisher.cvmfs.whitelist import Whitelist
from publisher.errors import Conflict, PublishError

WHITELIST_LIFETIME = timedelta(days=30)

_KEY_BITS = 2048
_CERTIFICATE_LIFETIME = timedelta(days=3650)
_COMMON_NAME_PREFIX = 30


@dataclass(frozen=True, slots=True)
class RepositoryKeys:
    """Keys of one repository in memory; printing it shows none of them."""

    fqrn: str
    master_public: rsa.RSAPublicKey
    signing: RepositoryKey
    certificate: x509.Certificate
    master: rsa.RSAPrivateKey | None = None
    """None where the master key is kept on another machine."""

    def __repr__(self) -> str:
        return f"RepositoryKeys({self.fqrn!r})"

    @classmethod
    def generate(cls, fqrn: str, now: datetime) -> RepositoryKeys:
        """New keys of 2048 bits and a self-signed certificate; now: the certificate's first day."""
        master = rsa.generate_private_key(public_exponent=65537, key_size=_KEY_BITS)
        return cls.certified(fqrn, master.public_key(), master, now)

    @classmethod
    def certified(
        cls, fqrn: str, master_public: rsa.RSAPublicKey, master: rsa.RSAPrivateKey | None, now: datetime
    ) -> RepositoryKeys:
        """A new repository key and its certificate beside a master key that exists; now: the certificate's first day."""
        signing = rsa.generate_private_key(public_exponent=65537, key_size=_KEY_BITS)
        shown = fqrn if len(fqrn) <= _COMMON_NAME_PREFIX else fqrn[:_COMMON_NAME_PREFIX] + "[...]"
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{shown} CernVM-FS Release Managers")])
        builder = x509.CertificateBuilder(name, name, signing.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now.astimezone(UTC)).not_valid_after(now.astimezone(UTC) + _CERTIFICATE_LIFETIME)
        return cls(fqrn, master_public, signing, builder.sign(signing, SHA256()), master)

    @classmethod
    def load(cls, directory: Path, fqrn: str) -> RepositoryKeys:
        """Read a repository's keys. Raises NotFound if one is missing (the master key may be), InvalidInput if one is broken.

        An exchange of the repository key that was interrupted between its two files is completed.
        """
        files = KeyFiles(directory, fqrn)
        public, master = load_master(directory, fqrn)
        signing = _private_key(files.signing)
        certificate = _certificate(files.certificate)
        if certificate.public_key() != signing.public_key() and files.next_certificate.exists():
            certificate = _certificate(files.next_certificate)
            if certificate.public_key() == signing.public_key():
                files.next_certificate.replace(files.certificate)
        if certificate.public_key() != signing.public_key():
            raise InvalidInput(f"{files.certificate} is not the certificate of {files.signing}; restore the two from one backup")
        return cls(fqrn, public, signing, certificate, master)

    def save(self, directory: Path) -> None:
        """Write the key files. Raises Conflict if any is there already: keys are never overwritten."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        files = KeyFiles(directory, self.fqrn)
        contents = [(files.signing, _private_pem(self.signing), 0o600), (files.public, self.public_pem, 0o644)]
        if self.master is not None:
            contents.insert(0, (files.master, _private_pem(self.master), 0o600))
        contents.append((files.certificate, self.certificate_pem, 0o644))
        present = [str(path) for path, _, _ in contents if path.exists()]
        if present:
            raise Conflict(f"there are keys of {self.fqrn} already: {', '.join(present)}; move them away if they are of no use")
        for path, data, mode in contents:
            _write_new(path, data, mode)

    @property
    def public_pem(self) -> bytes:
        """What clients need: the public master key."""
        return self.master_public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @property
    def certificate_pem(self) -> bytes:
        """Content of the certificate object."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def fingerprint(self) -> ContentHash:
        """What the whitelist names."""
        return fingerprint(self.certificate)

    def sign_manifest(self, payload: bytes) -> bytes:
        """The file `.cvmfspublished` for its lines."""
        unsigned = letter.unsigned(payload)
        return letter.serialise(unsigned, signature.sign_manifest(self.signing, unsigned.signed_text))

    def sign_whitelist(
        self, now: datetime, lifetime: timedelta = WHITELIST_LIFETIME, also: tuple[ContentHash, ...] = ()
    ) -> bytes:
        """A new `.cvmfswhitelist` for this certificate; also: fingerprints of others to accept, while keys are exchanged.

        Raises PublishError if the master key is not here.
        """
        if self.master is None:
            raise PublishError(f"the master key of {self.fqrn} is not on this machine; renew the whitelist where it is (resign)")
        return sign_whitelist(self.master, self.fqrn, (self.fingerprint, *also), now, lifetime)


def sign_whitelist(
    master: rsa.RSAPrivateKey, fqrn: str, fingerprints: Iterable[ContentHash], now: datetime, lifetime: timedelta
) -> bytes:
    """A new `.cvmfswhitelist` for certificates with these fingerprints."""
    issued = now.astimezone(UTC)
    whitelist = Whitelist(issued, issued + lifetime, fqrn, tuple(dict.fromkeys(fingerprints)))
    unsigned = letter.unsigned(whitelist.payload())
    return letter.serialise(unsigned, signature.sign_whitelist(master, unsigned.signed_text))


class KeyFiles:
    """Where the keys of a repository are."""

    def __init__(self, directory: Path, fqrn: str) -> None:
        self.master = directory / f"{fqrn}.masterkey"
        self.public = directory / f"{fqrn}.pub"
        self.signing = directory / f"{fqrn}.key"
        self.certificate = directory / f"{fqrn}.crt"
        self.next_signing = directory / f"{fqrn}.key.next"
        self.next_certificate = directory / f"{fqrn}.crt.next"
        """The last two: what is to become the repository key, from the day its certificate is in the whitelist."""

    @property
    def in_use(self) -> tuple[Path, Path, Path, Path]:
        """All but what is still to come."""
        return self.master, self.public, self.signing, self.certificate

    def state(self) -> tuple[object, ...]:
        """Something that is another thing once any of the files in use was replaced."""
        return tuple(_identity(path) for path in self.in_use)

    @property
    def any_present(self) -> bool:
        """Whether there is at least one."""
        return any(path.exists() for path in self.in_use)


def load_master(directory: Path, fqrn: str) -> tuple[rsa.RSAPublicKey, rsa.RSAPrivateKey | None]:
    """The public master key, and the private one if it is there; one of the two files is enough if it is the private one.

    Raises NotFound, InvalidInput.
    """
    files = KeyFiles(directory, fqrn)
    master = _private_key(files.master) if files.master.exists() else None
    if master is not None and not isinstance(master, rsa.RSAPrivateKey):
        raise InvalidInput(f"{files.master} is not an RSA key, as a master key must be")
    if master is not None and not files.public.exists():
        return master.public_key(), master
    public = load_public_key(_read(files.public))
    if master is not None and master.public_key() != public:
        raise InvalidInput(f"{files.public} does not belong to {files.master}; restore the two from one backup")
    return public, master


def import_keys(source: Path, fqrn: str, now: datetime) -> RepositoryKeys:
    """Keys from another place, such as `/etc/cvmfs/keys`: all, or a master key alone, which gets a new repository key.

    now: first day of a new certificate. Raises NotFound, InvalidInput.
    """
    files = KeyFiles(source, fqrn)
    if files.signing.exists() or files.certificate.exists():
        return RepositoryKeys.load(source, fqrn)
    public, master = load_master(source, fqrn)
    return RepositoryKeys.certified(fqrn, public, master, now)


def load_certificate(path: Path) -> x509.Certificate:
    """A certificate in PEM form. Raises NotFound, InvalidInput."""
    return _certificate(path)


def prepare_exchange(keys: RepositoryKeys, directory: Path, now: datetime) -> RepositoryKeys:
    """The keys with a new repository key, which is kept beside the one in use; one that is there already is taken.

    Raises InvalidInput if what is there is broken.
    """
    files = KeyFiles(directory, keys.fqrn)
    if files.next_signing.exists() and files.next_certificate.exists():
        signing, certificate = _private_key(files.next_signing), _certificate(files.next_certificate)
        if certificate.public_key() == signing.public_key():
            return replace(keys, signing=signing, certificate=certificate)
    new = RepositoryKeys.certified(keys.fqrn, keys.master_public, keys.master, now)
    for path, data, mode in (
        (files.next_signing, _private_pem(new.signing), 0o600),
        (files.next_certificate, new.certificate_pem, 0o644),
    ):
        path.unlink(missing_ok=True)
        _write_new(path, data, mode)
    return new


def complete_exchange(directory: Path, fqrn: str) -> None:
    """Let the new repository key be the one in use; the old one is gone then."""
    files = KeyFiles(directory, fqrn)
    files.next_signing.replace(files.signing)
    with suppress(FileNotFoundError):  # who reads the keys in between completes it
        files.next_certificate.replace(files.certificate)


def load_public_key(pem: bytes) -> rsa.RSAPublicKey:
    """Read a public master key. Raises InvalidInput."""
    try:
        key = load_pem_public_key(pem)
    except ValueError as error:
        raise InvalidInput(f"not a public key in PEM form: {error}") from error
    if not isinstance(key, rsa.RSAPublicKey):
        raise InvalidInput("a master key must be an RSA key")
    return key


def _identity(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _private_key(path: Path) -> RepositoryKey:
    try:
        key = load_pem_private_key(_read(path), None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidInput(f"{path} is not a private key in PEM form without password: {type(error).__name__}") from None
    if not isinstance(key, RepositoryKey):
        raise InvalidInput(f"{path} is neither an RSA key nor one on an elliptic curve; CernVM-FS takes no others")
    return key


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(_read(path))
    except ValueError as error:
        raise InvalidInput(f"{path} is not a certificate in PEM form: {error}") from error


def _private_pem(key: RepositoryKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"{path} is missing") from None


def _write_new(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
