from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mirror.errors import InvalidInput
from publisher.cvmfs import codec, signature, trust
from publisher.cvmfs.hash import ContentHash, HashAlgorithm
from publisher.cvmfs.letter import Letter
from publisher.cvmfs.manifest import RepositoryManifest
from publisher.cvmfs.whitelist import Whitelist, fingerprint_text
from publisher.errors import PublishError, RepositoryDamaged, Untrusted
from publisher.keys import KeyFiles, RepositoryKeys, load_public_key
from tests.support.repositories import FQRN, NOW, keys_of

GOLDEN = Path(__file__).parents[2] / "data" / "cvmfs-golden" / "repo"
ELLIPTIC = Path(__file__).parents[2] / "data" / "cvmfs-elliptic"
WHEN = datetime.fromtimestamp(NOW, UTC)

MANIFEST = RepositoryManifest(
    root=ContentHash.of(b"root"),
    catalog_size=16384,
    ttl=60,
    revision=7,
    fqrn=FQRN,
    certificate=ContentHash.of(b"certificate"),
    garbage_collectable=True,
    history=ContentHash.of(b"history"),
    timestamp=1_800_000_000,
    metainfo=ContentHash.of(b"meta", HashAlgorithm.SHAKE128),
    reflog=ContentHash.of(b"reflog"),
    others=(("Q", "future"),),
)


def test_manifest_survives_the_round_trip() -> None:
    letter = Letter.parse(keys_of(FQRN).sign_manifest(MANIFEST.payload()), "manifest")
    assert RepositoryManifest.parse(letter.payload) == MANIFEST
    assert signature.verify_manifest(keys_of(FQRN).signing.public_key(), letter.signed_text, letter.signature)


def test_manifest_without_optional_fields() -> None:
    plain = replace(MANIFEST, catalog_size=None, history=None, metainfo=None, reflog=None, others=(), garbage_collectable=False)
    assert RepositoryManifest.parse(plain.payload()) == plain


def test_golden_manifest_is_written_the_same() -> None:
    letter = Letter.parse((GOLDEN / ".cvmfspublished").read_bytes(), "manifest")
    assert RepositoryManifest.parse(letter.payload).payload() == letter.payload


@pytest.mark.parametrize("line", ["C", "D", "S", "N", "X"])
def test_manifest_lacking_a_field_is_refused(line: str) -> None:
    lines = [text for text in MANIFEST.payload().splitlines(keepends=True) if not text.startswith(line.encode())]
    with pytest.raises(RepositoryDamaged):
        RepositoryManifest.parse(b"".join(lines))


@pytest.mark.parametrize("position", [0, 50, -400, -300])
def test_any_changed_byte_of_a_letter_is_noticed(position: int) -> None:
    data = bytearray(keys_of(FQRN).sign_manifest(MANIFEST.payload()))
    data[position] ^= 1
    try:
        letter = Letter.parse(bytes(data), "manifest")
    except RepositoryDamaged:
        return
    assert not signature.verify_manifest(keys_of(FQRN).signing.public_key(), letter.signed_text, letter.signature)


@pytest.mark.parametrize("size", [0, 10, 300])
def test_cut_letter_is_refused(size: int) -> None:
    with pytest.raises(RepositoryDamaged):
        Letter.parse(keys_of(FQRN).sign_manifest(MANIFEST.payload())[:size], "manifest")


def test_whitelist_survives_the_round_trip() -> None:
    other = ContentHash.of(b"another certificate", HashAlgorithm.SHAKE128)
    data = keys_of(FQRN).sign_whitelist(WHEN, timedelta(days=30), (other,))
    whitelist = trust.verified_whitelist(data, FQRN, keys_of(FQRN).master_public, WHEN)
    assert whitelist == Whitelist(WHEN, WHEN + timedelta(days=30), FQRN, (keys_of(FQRN).fingerprint, other))
    assert fingerprint_text(other).endswith("-SHAKE128")


def test_whitelist_comments_are_ignored() -> None:
    text = f"20260101000000\nE20270101000000\nN{FQRN}\n{fingerprint_text(keys_of(FQRN).fingerprint)} # laptop\n"
    assert Whitelist.parse(text.encode()).fingerprints == (keys_of(FQRN).fingerprint,)


def test_whitelist_ends_with_the_hour_of_its_expiry() -> None:
    expiry = datetime(2027, 1, 1, 12, 30, tzinfo=UTC)
    whitelist = Whitelist(expiry, expiry, FQRN, ())
    assert whitelist.is_valid_at(datetime(2027, 1, 1, 11, 59, tzinfo=UTC))
    assert not whitelist.is_valid_at(datetime(2027, 1, 1, 12, 0, tzinfo=UTC))


def test_whitelist_refusals() -> None:
    keys = keys_of(FQRN)
    data = keys.sign_whitelist(WHEN)
    with pytest.raises(Untrusted, match="not signed by the master key"):
        trust.verified_whitelist(data, FQRN, keys_of("other.example.org").master_public, WHEN)
    with pytest.raises(Untrusted, match="expired"):
        trust.verified_whitelist(data, FQRN, keys.master_public, WHEN + timedelta(days=30))
    with pytest.raises(Untrusted, match=r"layers\.example\.org, not other"):
        trust.verified_whitelist(data, "other.example.org", keys.master_public, WHEN)
    with pytest.raises(PublishError, match="resign"):
        replace(keys, master=None).sign_whitelist(WHEN)


def test_manifest_signed_by_a_stranger_is_refused() -> None:
    keys, stranger = keys_of(FQRN), keys_of("other.example.org")
    whitelist = trust.verified_whitelist(keys.sign_whitelist(WHEN), FQRN, keys.master_public, WHEN)
    letter = Letter.parse(stranger.sign_manifest(MANIFEST.payload()), "manifest")
    with pytest.raises(Untrusted, match="not in the whitelist"):
        trust.verify_manifest(letter, stranger.certificate_pem, whitelist)
    with pytest.raises(Untrusted, match="signature of the manifest"):
        trust.verify_manifest(letter, keys.certificate_pem, whitelist)


def test_manifest_signed_on_an_elliptic_curve_by_the_server_tools() -> None:
    """Written by cvmfs_server 2.12 with keys of the operator's; its client mounts it."""
    fqrn, when = "ec.example.org", datetime(2026, 11, 23, 12, tzinfo=UTC)
    master = load_public_key((ELLIPTIC / f"{fqrn}.pub").read_bytes())
    whitelist = trust.verified_whitelist((ELLIPTIC / ".cvmfswhitelist").read_bytes(), fqrn, master, when)
    data, pem = (ELLIPTIC / ".cvmfspublished").read_bytes(), (ELLIPTIC / f"{fqrn}.crt").read_bytes()
    letter, manifest = trust.read_manifest(data, fqrn)
    assert trust.verify_manifest(letter, pem, whitelist).subject.rfc4514_string() == f"CN={fqrn}"
    assert manifest.certificate == ContentHash.of(codec.compress_like_reference(pem))
    with pytest.raises(Untrusted, match="signature of the manifest"):
        trust.verify_manifest(replace(letter, signature=letter.signature[:-1] + b"\0"), pem, whitelist)


def brought(directory: Path, key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> RepositoryKeys:
    """Keys as an operator brings them: an RSA master key, another kind of repository key."""
    keys = keys_of(FQRN)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, FQRN)])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7).not_valid_before(WHEN).not_valid_after(WHEN)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else SHA256()
    replace(keys, certificate=builder.sign(key, algorithm)).save(directory)
    (directory / f"{FQRN}.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return RepositoryKeys.load(directory, FQRN)


def test_keys_on_an_elliptic_curve_are_taken(tmp_path: Path) -> None:
    keys = brought(tmp_path / "theirs", ec.generate_private_key(ec.SECP256R1()))
    keys.save(tmp_path / "ours")
    keys = RepositoryKeys.load(tmp_path / "ours", FQRN)
    whitelist = trust.verified_whitelist(keys.sign_whitelist(WHEN), FQRN, keys.master_public, WHEN)
    letter = Letter.parse(keys.sign_manifest(MANIFEST.payload()), "manifest")
    assert trust.verify_manifest(letter, keys.certificate_pem, whitelist) == keys.certificate
    other = Letter.parse(keys.sign_manifest(replace(MANIFEST, revision=8).payload()), "manifest")
    with pytest.raises(Untrusted, match="signature of the manifest"):
        trust.verify_manifest(replace(letter, signature=other.signature), keys.certificate_pem, whitelist)


def test_keys_that_the_server_tools_cannot_use_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="neither an RSA key nor one on an elliptic curve"):
        brought(tmp_path, ed25519.Ed25519PrivateKey.generate())
    files = KeyFiles(tmp_path, FQRN)
    master = ec.generate_private_key(ec.SECP256R1())
    files.master.write_bytes(master.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(InvalidInput, match=r"masterkey is not an RSA key"):
        RepositoryKeys.load(tmp_path, FQRN)


def test_whitelist_signature_is_not_an_ordinary_one() -> None:
    keys = keys_of(FQRN)
    assert keys.master is not None
    made = signature.sign_whitelist(keys.master, b"0" * 40)
    assert len(made) == 256
    assert signature.verify_whitelist(keys.master_public, b"0" * 40, made)
    assert not signature.verify_whitelist(keys.master_public, b"1" * 40, made)
    assert not signature.verify_manifest(keys.master_public, b"0" * 40, made)
    assert not signature.verify_whitelist(keys.master_public, b"0" * 40, b"\xff" * 256)
    assert isinstance(keys.master_public, rsa.RSAPublicKey)


def test_certificates_are_compressed_exactly_like_the_reference_does() -> None:
    """Replication by CernVM-FS compresses them anew under the old name."""
    letter = Letter.parse((GOLDEN / ".cvmfspublished").read_bytes(), "manifest")
    manifest = RepositoryManifest.parse(letter.payload)
    for content, kind in ((manifest.certificate, "X"), (manifest.metainfo, "M")):
        assert content is not None
        text = str(content)
        stored = (GOLDEN / "data" / text[:2] / f"{text[2:]}{kind}").read_bytes()
        assert codec.compress_like_reference(codec.decompress(stored, 1 << 20)) == stored
    assert codec.is_reference_zlib()
