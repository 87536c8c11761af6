"""Schema changes, oldest first; Alembic runs them inside the transaction of `mirror.state.migrate`."""
