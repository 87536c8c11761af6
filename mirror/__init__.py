"""The network-facing half of debark: a registry mirror that records what is pulled. It holds no signing keys."""
