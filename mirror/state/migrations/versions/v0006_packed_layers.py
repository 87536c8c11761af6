"""Layers whose blobs CVMFS repositories hold as well, so that clients can be sent there for them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision: str | None = "0005"


def upgrade() -> None:
    """Add a table and its counters."""
    op.create_table(
        "packed_layers",
        sa.Column("fqrn", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("object", sa.Text, nullable=False, comment="path below the repository's root, such as data/ab/cdef..."),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False, comment="the first revision that has it"),
        sa.Column("serial", sa.BigInteger, nullable=False, comment="value of the counter when it came"),
        sa.PrimaryKeyConstraint("fqrn", "digest", name="pk_packed_layers"),
        sa.ForeignKeyConstraint(["fqrn"], ["repositories.fqrn"], name="fk_packed_layers_fqrn"),
        comment="Blobs of layers that a CVMFS repository holds as one object each, byte for byte",
    )
    op.create_index("ix_packed_layers_digest", "packed_layers", ["digest"])
    op.create_index("ix_packed_layers_serial", "packed_layers", ["serial"])
    counters = sa.table("counters", sa.column("name", sa.Text), sa.column("value", sa.BigInteger))
    op.bulk_insert(counters, [{"name": "packed_layers", "value": 0}, {"name": "packed_layers_gone", "value": 0}])
