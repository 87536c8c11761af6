"""Names of several platforms, what publishing left out of images, take-downs, and names that are kept."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision: str | None = "0001"


def upgrade() -> None:
    """Add columns and tables; what was published before is of its name's own platform."""
    with op.batch_alter_table("names") as names:
        names.add_column(
            sa.Column(
                "platform", sa.Text, nullable=False, server_default="", comment="os/architecture[/variant]; empty: the name's own"
            )
        )
        names.drop_constraint("pk_names", type_="primary")
        names.create_primary_key("pk_names", ["registry", "repository", "reference", "platform"])
    op.add_column("images", sa.Column("size", sa.BigInteger, comment="of all its blobs, as the manifest says; null: unknown"))
    op.add_column("images", sa.Column("notes", sa.Text, comment="JSON object: what publishing left out or changed, by rule"))
    op.add_column("layers", sa.Column("notes", sa.Text, comment="JSON object: what unpacking left out or changed, by rule"))
    op.create_table(
        "blocks",
        sa.Column("digest", sa.Text, nullable=False, comment="of an image manifest, or of an index that lists it"),
        sa.Column("image", sa.Text, nullable=False, comment="the name under which it was taken down"),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("blocked_by", sa.Text, nullable=False),
        sa.Column("blocked_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_blocks"),
        comment="What was taken down, and is not published again",
    )
    op.create_table(
        "pins",
        sa.Column("registry", sa.Text, nullable=False),
        sa.Column("repository", sa.Text, nullable=False),
        sa.Column("reference", sa.Text, nullable=False),
        sa.Column("recipe", sa.Text, nullable=False, comment="the wish list that names it"),
        sa.Column("pinned_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("registry", "repository", "reference", "recipe", name="pk_pins"),
        comment="Names that are kept whether they are used or not",
    )
