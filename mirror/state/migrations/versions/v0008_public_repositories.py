"""When repositories were last seen to be public."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision: str | None = "0007"


def upgrade() -> None:
    """Add a table."""
    op.create_table(
        "public_repositories",
        sa.Column("registry", sa.Text, nullable=False),
        sa.Column("repository", sa.Text, nullable=False),
        sa.Column("seen_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("registry", "repository", name="pk_public_repositories"),
        comment="When an upstream last gave a repository to a client without credentials, where the mirror itself has some",
    )
    op.create_index("ix_public_repositories_seen_at", "public_repositories", ["seen_at"])
