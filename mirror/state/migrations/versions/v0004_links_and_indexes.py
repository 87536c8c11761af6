"""Where public links are while what they stand for changes, what indexes list, and artifacts among the images."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision: str | None = "0003"


def upgrade() -> None:
    """Add columns and tables; published names have their links where they are published."""
    op.add_column("images", sa.Column("not_an_image_at", sa.Double, comment="when it last became not-an-image"))
    op.add_column("names", sa.Column("link_fqrn", sa.Text, comment="where its public link is, whatever that leads to meanwhile"))
    op.add_column("names", sa.Column("link_path", sa.Text))
    op.execute("UPDATE names SET link_fqrn = fqrn, link_path = path WHERE published_at IS NOT NULL")
    op.create_table(
        "leftovers",
        sa.Column("fqrn", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False, comment="as in names"),
        sa.Column("since", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("fqrn", "path", name="pk_leftovers"),
        comment="Public links that lead to what their name stands for no more; a row goes when the link is removed, or right",
    )
    op.create_table(
        "index_children",
        sa.Column("index_digest", sa.Text, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("manifest_digest", sa.Text, nullable=False),
        sa.Column("media_type", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("platform", sa.Text, nullable=False, comment="os/architecture[/variant] as listed; empty: none is stated"),
        sa.PrimaryKeyConstraint("index_digest", "position", name="pk_index_children"),
        comment="Image manifests that indexes list, those of indexes in indexes too, in their order",
    )
    op.create_index("ix_index_children_manifest_digest", "index_children", ["manifest_digest"])
