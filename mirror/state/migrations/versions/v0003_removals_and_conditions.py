"""Images that are to leave a CVMFS repository, and what keeps publishers from their work."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision: str | None = "0002"


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "removals",
        sa.Column("fqrn", sa.Text, sa.ForeignKey("repositories.fqrn", name="fk_removals_fqrn"), nullable=False),
        sa.Column("manifest_digest", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("requested_by", sa.Text, nullable=False),
        sa.Column("requested_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("fqrn", "manifest_digest", name="pk_removals"),
        comment="Images that the writer of a CVMFS repository is to remove from it; a row goes when that is done",
    )
    op.create_table(
        "conditions",
        sa.Column("publisher", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("since", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("publisher", "name", name="pk_conditions"),
        comment="What keeps a publisher from its work now, or makes it work by old rules",
    )
