"""Names that are not published, whatever becomes of the image that they stand for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision: str | None = "0004"


def upgrade() -> None:
    """Add columns."""
    op.add_column("names", sa.Column("refusal", sa.Text, comment="why this name is not published, whatever its image is"))
    op.add_column("names", sa.Column("refused_at", sa.Double))
