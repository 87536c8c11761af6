from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from publisher.cvmfs import codec, signature, trust
from publisher.cvmfs.hash import ContentHash, HashAlgorithm
from publisher.cvmfs.letter import Letter
from publisher.cvmfs.manifest import RepositoryManifest
from publisher.cvmfs.whitelist import Whitelist, fingerprint_text
from publisher.errors import PublishError, RepositoryDamaged, Untrusted
from tests.support.repositories import FQRN, NOW, keys_of

GOLDEN = Path(__file__).parents[2] / "data" / "cvmfs-golden" / "repo"
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
