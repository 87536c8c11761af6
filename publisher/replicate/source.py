"""What a source shows of its current revision, verified from the master key on, before anything of it is taken."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric import rsa

from mirror.errors import Denied, NotFound
from publisher.creation import MASTER_REPLICA_NAME
from publisher.cvmfs import codec, trust
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.cvmfs.manifest import MANIFEST_NAME, RepositoryManifest
from publisher.cvmfs.whitelist import WHITELIST_NAME
from publisher.errors import RepositoryDamaged, Untrusted
from publisher.objects.http_client import RepositoryClient
from publisher.replicate.own import Shown
from publisher.replicate.wrong import verify


async def read_shown(
    client: RepositoryClient,
    fqrn: str,
    master_key: rsa.RSAPublicKey,
    own: Shown | None,
    *,
    clock: Callable[[], float],
    allow_older: bool,
) -> tuple[Shown, bytes]:
    """What the source shows, and the stored form of the certificate that signed it.

    The newer of its whitelist and the replica's counts, so that none that was replaced comes back.
    Raises Denied if the source does not permit replication, Untrusted for what is not signed, expired, of another repository, or
    (unless allowed) older than what the replica has; NotFound if there is no repository, RepositoryDamaged, Unavailable.
    """
    limit = client.limits.file_bytes
    try:
        await client.read(MASTER_REPLICA_NAME, limit)
    except NotFound as error:
        raise Denied(
            f"the repository {fqrn} may not be replicated from there: it has no {MASTER_REPLICA_NAME}, which its owner must put "
            f"beside its manifest ({error})"
        ) from error
    manifest_file = await client.read(MANIFEST_NAME, limit)
    letter, manifest = trust.read_manifest(manifest_file, fqrn)
    if own is not None and not allow_older:
        check_not_older(manifest, own.manifest)
    whitelist_file = await client.read(WHITELIST_NAME, limit)
    now = datetime.fromtimestamp(clock(), UTC)
    whitelist = trust.verified_whitelist(whitelist_file, fqrn, master_key, None)
    if own is not None and own.whitelist is not None and own.whitelist.issued > whitelist.issued and not allow_older:
        whitelist_file, whitelist = own.whitelist_file, own.whitelist
    trust.verified_whitelist(whitelist_file, fqrn, master_key, now)
    certificate = await read_metadata(client, manifest.certificate, ObjectKind.CERTIFICATE, limit)
    trust.verify_manifest(letter, codec.decompress(certificate, limit), whitelist)
    return Shown(manifest, manifest_file, whitelist_file, whitelist), certificate


async def read_metadata(client: RepositoryClient, content: ContentHash, kind: ObjectKind, limit: int) -> bytes:
    """The stored form of a certificate, history or meta-info. Raises RepositoryDamaged if it is missing or wrong, Unavailable."""
    path = content.object_path(kind)
    try:
        stored = await client.read(path, limit)
        try:
            verify(stored, content, kind)
        except RepositoryDamaged:
            stored = await client.read(path, limit, fresh=True)
            verify(stored, content, kind)
    except NotFound as error:
        raise RepositoryDamaged(f"the {kind.name.lower()} that the manifest names is missing at the source: {error}") from error
    return stored


def check_not_older(shown: RepositoryManifest, own: RepositoryManifest) -> None:
    """Refuse to go back. Raises Untrusted."""
    if shown.revision < own.revision:
        raise Untrusted(
            f"the source shows revision {shown.revision} of {own.fqrn}, the replica has {own.revision}: an old copy, or an "
            "attack; if the repository was really set back, replicate once with older revisions allowed"
        )
    if shown.revision == own.revision and shown.root != own.root:
        raise Untrusted(
            f"the source shows another revision {shown.revision} of {own.fqrn} than the replica has, which no client would take; "
            "if the repository was really made anew, replicate once with older revisions allowed"
        )
