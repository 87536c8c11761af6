"""The failure that all leases share."""

from __future__ import annotations

from mirror.errors import Unavailable


class LeaseExpired(Unavailable):
    """What was claimed belongs to somebody else by now, or to nobody: stop working on it."""
