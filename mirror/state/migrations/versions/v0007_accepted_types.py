"""Tags that stand for something else to clients which do not take every type of manifest."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision: str | None = "0006"


def upgrade() -> None:
    """Add a column to the key; what tags were known for was asked for with all types."""
    with op.batch_alter_table("tags") as tags:
        tags.add_column(
            sa.Column("accept", sa.Text, nullable=False, server_default="", comment="media types that were asked for; empty: all")
        )
        tags.drop_constraint("pk_tags", type_="primary")
        tags.create_primary_key("pk_tags", ["registry", "repository", "tag", "accept"])
