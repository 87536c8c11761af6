"""Access-log records and what an administrator learns from them."""
