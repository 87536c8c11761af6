"""Several processes that answer on one port: how they are made, spoken to, kept running, changed for new ones, and stopped."""
