"""What every table of the file has in common, and the units in which its bounds are written."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


class Section(BaseModel):
    """A table of the file: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
