"""What Alembic runs to apply migrations: on the connection and in the transaction that `mirror.state.migrate` hands over."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=context.config.attributes["metadata"],
    # SQLite can roll back DDL as long as the driver starts no transactions of its own, and ours does not.
    transactional_ddl=True,
)
context.run_migrations()
