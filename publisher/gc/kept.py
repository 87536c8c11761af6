"""Which entries of a reference log were in use lately. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from publisher.cvmfs.reflog import Reference


def in_use_since(references: Iterable[Reference], publications: Sequence[int], since: float) -> list[Reference]:
    """The references that some client may have been given at this time (Unix seconds) or later.

    publications: Unix seconds at which clients began to see the current revision, and those before it, back to one that they saw
    before `since`; ascending. The reference log alone would not do: it also names roots of publishers that died on the way.

    What was published is in use until the next publication, whatever its own age; a reference is entered anew by each publication
    that names it. One that is younger than the current revision was never seen by anybody and counts from its own time.
    """
    result = []
    for reference in references:
        later = bisect_right(publications, reference.timestamp)
        end = publications[later] if later < len(publications) else reference.timestamp
        if end >= since:
            result.append(reference)
    return result
