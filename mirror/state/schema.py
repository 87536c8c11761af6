"""Every table of the state, for both databases. `migrations/` creates them; a test compares the two.

Times are Unix seconds (float), sizes are bytes, digests are text (`sha256:...`), `registry` and `repository` are canonical names.
A tag or digest after a repository is a `reference`.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, ForeignKey, Index, Integer, MetaData, PrimaryKeyConstraint, Table, Text

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

tags = Table(
    "tags",
    metadata,
    Column("registry", Text, nullable=False),
    Column("repository", Text, nullable=False),
    Column("tag", Text, nullable=False),
    Column("accept", Text, nullable=False, server_default="", comment="media types that were asked for; empty: all"),
    Column("digest", Text, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("checked_at", Double, nullable=False),
    PrimaryKeyConstraint("registry", "repository", "tag", "accept"),
    Index(None, "registry", "repository", "digest"),
    comment="What a tag last resolved to upstream, and when the upstream was last asked",
)

manifests = Table(
    "manifests",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("media_type", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    comment="Media type and size of the manifests and indexes in the blob store, which knows bytes only",
)

links = Table(
    "links",
    metadata,
    Column("registry", Text, nullable=False),
    Column("repository", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("kind", Text, nullable=False, comment="manifest or blob"),
    Column("media_type", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    PrimaryKeyConstraint("registry", "repository", "digest"),
    comment="Content that a repository may serve: its manifests and all that they name",
)

public_repositories = Table(
    "public_repositories",
    metadata,
    Column("registry", Text, nullable=False),
    Column("repository", Text, nullable=False),
    Column("seen_at", Double, nullable=False, index=True),
    PrimaryKeyConstraint("registry", "repository"),
    comment="When an upstream last gave a repository to a client without credentials, where the mirror itself has some",
)

images = Table(
    "images",
    metadata,
    Column("manifest_digest", Text, primary_key=True),
    Column("state", Text, nullable=False, index=True, comment="mirror.jobs.model.State"),
    Column("reason", Text, comment="why it was refused, or failed last"),
    Column("attempts", Integer, nullable=False, comment="claims since it was queued"),
    Column("ready_at", Double, index=True, comment="from when it may be claimed: next try or end of the lease; null: not at all"),
    Column("lease_owner", Text, index=True, comment="the publisher that works on it"),
    Column("source_registry", Text, nullable=False),
    Column("source_repository", Text, nullable=False),
    Column("fqrn", Text, comment="the CVMFS repository that holds it"),
    Column("updated_at", Double, nullable=False),
    Column("size", BigInteger, comment="of all its blobs, as the manifest says; null: unknown"),
    Column("notes", Text, comment="JSON object: what publishing left out or changed, by rule"),
    *(
        Column(f"{state}_at", Double, comment=f"when it last became {state}")
        for state in ("queued", "fetching", "ingesting", "committing", "replicating", "published", "refused", "failed", "expired")
    ),
    Column("not_an_image_at", Double, comment="when it last became not-an-image"),
    comment="The publish job and the state of one image manifest",
)

names = Table(
    "names",
    metadata,
    Column("registry", Text, nullable=False),
    Column("repository", Text, nullable=False),
    Column("reference", Text, nullable=False),
    Column("platform", Text, nullable=False, server_default="", comment="os/architecture[/variant]; empty: the name's own"),
    Column("target_digest", Text, nullable=False, comment="what it resolved to: the manifest, or an index that lists it"),
    Column("manifest_digest", Text, ForeignKey("images.manifest_digest"), nullable=False, index=True),
    Column("requested_at", Double, nullable=False),
    Column("fqrn", Text, comment="null with path, revision and published_at: waits to be published"),
    Column("path", Text),
    Column("revision", BigInteger),
    Column("published_at", Double),
    Column("refusal", Text, comment="why this name is not published, whatever its image is"),
    Column("refused_at", Double),
    Column("link_fqrn", Text, comment="where its public link is, whatever that leads to meanwhile"),
    Column("link_path", Text),
    Column(
        "serial", BigInteger, nullable=False, index=True, comment="value of the counter at the last change of it or its image"
    ),
    PrimaryKeyConstraint("registry", "repository", "reference", "platform"),
    Index(None, "registry", "repository", "target_digest"),
    Index(None, "registry", "repository", "manifest_digest"),
    comment="Names under which images were pulled, and the public path that each got",
)

leftovers = Table(
    "leftovers",
    metadata,
    Column("fqrn", Text, nullable=False),
    Column("path", Text, nullable=False, comment="as in names"),
    Column("since", Double, nullable=False),
    PrimaryKeyConstraint("fqrn", "path"),
    comment="Public links that lead to what their name stands for no more; a row goes when the link is removed, or right",
)

index_children = Table(
    "index_children",
    metadata,
    Column("index_digest", Text, nullable=False),
    Column("position", Integer, nullable=False),
    Column("manifest_digest", Text, nullable=False, index=True),
    Column("media_type", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("platform", Text, nullable=False, comment="os/architecture[/variant] as listed; empty: none is stated"),
    PrimaryKeyConstraint("index_digest", "position"),
    comment="Image manifests that indexes list, those of indexes in indexes too, in their order",
)

counters = Table(
    "counters",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),
    comment="Counters raised inside a transaction; whoever raises one holds it until the commit, so values appear in order",
)

repositories = Table(
    "repositories",
    metadata,
    Column("fqrn", Text, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("root_hash", Text, nullable=False, comment="content hash of the root catalog"),
    Column("public_key", Text, nullable=False, comment="PEM"),
    Column("url_path", Text, nullable=False, comment="path below a web server's root, such as /cvmfs/<fqrn>"),
    Column("stored_bytes", BigInteger, nullable=False),
    Column("state", Text, nullable=False, comment="mirror.jobs.schedule.RepositoryState"),
    Column("lease_owner", Text, comment="the one writer"),
    Column("lease_until", Double),
    Column("updated_at", Double, nullable=False),
    comment="CVMFS repositories that publishers of this state write to",
)

layers = Table(
    "layers",
    metadata,
    Column("fqrn", Text, ForeignKey("repositories.fqrn"), nullable=False),
    Column("digest", Text, nullable=False),
    Column("size", BigInteger, nullable=False, comment="of the blob, as the manifest says"),
    Column("entries", BigInteger, nullable=False),
    Column("notes", Text, comment="JSON object: what unpacking left out or changed, by rule"),
    PrimaryKeyConstraint("fqrn", "digest"),
    comment="Layers that a CVMFS repository holds unpacked",
)

packed_layers = Table(
    "packed_layers",
    metadata,
    Column("fqrn", Text, ForeignKey("repositories.fqrn"), nullable=False),
    Column("digest", Text, nullable=False, index=True),
    Column("object", Text, nullable=False, comment="path below the repository's root, such as data/ab/cdef..."),
    Column("size", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False, comment="the first revision that has it"),
    Column("serial", BigInteger, nullable=False, index=True, comment="value of the counter when it came"),
    PrimaryKeyConstraint("fqrn", "digest"),
    comment="Blobs of layers that a CVMFS repository holds as one object each, byte for byte",
)

usage = Table(
    "usage",
    metadata,
    Column("manifest_digest", Text, primary_key=True),
    Column("last_used", Double, nullable=False, index=True),
    Column("pulls", BigInteger, nullable=False),
    comment="Last use of images; what is not used expires",
)

blocks = Table(
    "blocks",
    metadata,
    Column("digest", Text, primary_key=True, comment="of an image manifest, or of an index that lists it"),
    Column("image", Text, nullable=False, comment="the name under which it was taken down"),
    Column("reason", Text, nullable=False),
    Column("blocked_by", Text, nullable=False),
    Column("blocked_at", Double, nullable=False),
    comment="What was taken down, and is not published again",
)

pins = Table(
    "pins",
    metadata,
    Column("registry", Text, nullable=False),
    Column("repository", Text, nullable=False),
    Column("reference", Text, nullable=False),
    Column("recipe", Text, nullable=False, comment="the wish list that names it"),
    Column("pinned_at", Double, nullable=False),
    PrimaryKeyConstraint("registry", "repository", "reference", "recipe"),
    comment="Names that are kept whether they are used or not",
)

removals = Table(
    "removals",
    metadata,
    Column("fqrn", Text, ForeignKey("repositories.fqrn"), nullable=False),
    Column("manifest_digest", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("requested_by", Text, nullable=False),
    Column("requested_at", Double, nullable=False),
    PrimaryKeyConstraint("fqrn", "manifest_digest"),
    comment="Images that the writer of a CVMFS repository is to remove from it; a row goes when that is done",
)

conditions = Table(
    "conditions",
    metadata,
    Column("publisher", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("since", Double, nullable=False),
    PrimaryKeyConstraint("publisher", "name"),
    comment="What keeps a publisher from its work now, or makes it work by old rules",
)
