"""The first schema: tags, links, publish jobs, names, CVMFS repositories, usage."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision: str | None = None

_STATES = ("queued", "fetching", "ingesting", "committing", "replicating", "published", "refused", "failed", "expired")


def upgrade() -> None:
    """Create all tables."""
    _create_mirror_tables()
    _create_job_tables()
    _create_cvmfs_tables()


def _create_mirror_tables() -> None:
    op.create_table(
        "tags",
        sa.Column("registry", sa.Text, nullable=False),
        sa.Column("repository", sa.Text, nullable=False),
        sa.Column("tag", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("media_type", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("checked_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("registry", "repository", "tag", name="pk_tags"),
        comment="What a tag last resolved to upstream, and when the upstream was last asked",
    )
    op.create_index("ix_tags_registry_repository_digest", "tags", ["registry", "repository", "digest"])
    op.create_table(
        "manifests",
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("media_type", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_manifests"),
        comment="Media type and size of the manifests and indexes in the blob store, which knows bytes only",
    )
    op.create_table(
        "links",
        sa.Column("registry", sa.Text, nullable=False),
        sa.Column("repository", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False, comment="manifest or blob"),
        sa.Column("media_type", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("registry", "repository", "digest", name="pk_links"),
        comment="Content that a repository may serve: its manifests and all that they name",
    )


def _create_job_tables() -> None:
    op.create_table(
        "images",
        sa.Column("manifest_digest", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False, comment="mirror.jobs.model.State"),
        sa.Column("reason", sa.Text, comment="why it was refused, or failed last"),
        sa.Column("attempts", sa.Integer, nullable=False, comment="claims since it was queued"),
        sa.Column("ready_at", sa.Double, comment="from when it may be claimed: next try or end of the lease; null: not at all"),
        sa.Column("lease_owner", sa.Text, comment="the publisher that works on it"),
        sa.Column("source_registry", sa.Text, nullable=False),
        sa.Column("source_repository", sa.Text, nullable=False),
        sa.Column("fqrn", sa.Text, comment="the CVMFS repository that holds it"),
        sa.Column("updated_at", sa.Double, nullable=False),
        *(sa.Column(f"{state}_at", sa.Double, comment=f"when it last became {state}") for state in _STATES),
        sa.PrimaryKeyConstraint("manifest_digest", name="pk_images"),
        comment="The publish job and the state of one image manifest",
    )
    for column in ("state", "ready_at", "lease_owner"):
        op.create_index(f"ix_images_{column}", "images", [column])
    op.create_table(
        "names",
        sa.Column("registry", sa.Text, nullable=False),
        sa.Column("repository", sa.Text, nullable=False),
        sa.Column("reference", sa.Text, nullable=False),
        sa.Column(
            "target_digest", sa.Text, nullable=False, comment="what it resolved to: the manifest, or an index that lists it"
        ),
        sa.Column("manifest_digest", sa.Text, nullable=False),
        sa.Column("requested_at", sa.Double, nullable=False),
        sa.Column("fqrn", sa.Text, comment="null with path, revision and published_at: waits to be published"),
        sa.Column("path", sa.Text),
        sa.Column("revision", sa.BigInteger),
        sa.Column("published_at", sa.Double),
        sa.Column("serial", sa.BigInteger, nullable=False, comment="value of the counter at the last change of it or its image"),
        sa.PrimaryKeyConstraint("registry", "repository", "reference", name="pk_names"),
        sa.ForeignKeyConstraint(["manifest_digest"], ["images.manifest_digest"], name="fk_names_manifest_digest"),
        comment="Names under which images were pulled, and the public path that each got",
    )
    for columns in (["manifest_digest"], ["serial"], ["registry", "repository", "target_digest"]):
        op.create_index(f"ix_names_{'_'.join(columns)}", "names", columns)
    op.create_index("ix_names_registry_repository_manifest_digest", "names", ["registry", "repository", "manifest_digest"])
    counters = op.create_table(
        "counters",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("value", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_counters"),
        comment="Counters raised inside a transaction; whoever raises one holds it until the commit, so values appear in order",
    )
    op.bulk_insert(counters, [{"name": "names", "value": 0}])


def _create_cvmfs_tables() -> None:
    op.create_table(
        "repositories",
        sa.Column("fqrn", sa.Text, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("root_hash", sa.Text, nullable=False, comment="content hash of the root catalog"),
        sa.Column("public_key", sa.Text, nullable=False, comment="PEM"),
        sa.Column("url_path", sa.Text, nullable=False, comment="path below a web server's root, such as /cvmfs/<fqrn>"),
        sa.Column("stored_bytes", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False, comment="mirror.jobs.schedule.RepositoryState"),
        sa.Column("lease_owner", sa.Text, comment="the one writer"),
        sa.Column("lease_until", sa.Double),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("fqrn", name="pk_repositories"),
        comment="CVMFS repositories that publishers of this state write to",
    )
    op.create_table(
        "layers",
        sa.Column("fqrn", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False, comment="of the blob, as the manifest says"),
        sa.Column("entries", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("fqrn", "digest", name="pk_layers"),
        sa.ForeignKeyConstraint(["fqrn"], ["repositories.fqrn"], name="fk_layers_fqrn"),
        comment="Layers that a CVMFS repository holds unpacked",
    )
    op.create_table(
        "usage",
        sa.Column("manifest_digest", sa.Text, nullable=False),
        sa.Column("last_used", sa.Double, nullable=False),
        sa.Column("pulls", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("manifest_digest", name="pk_usage"),
        comment="Last use of images; what is not used expires",
    )
    op.create_index("ix_usage_last_used", "usage", ["last_used"])
