"""The small documents beside each layer. Layout reference, section 3, `layers.json` and `origin.json`."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime

from mirror.errors import InvalidInput
from mirror.jobs.notes import Notes
from mirror.oci.digest import Digest


def layers_json(layer: Digest, diff_id: Digest, size: int, created: float, *, notes: Notes, lower: str | None = None) -> bytes:
    """A layer's digests (of its blob, and of its uncompressed archive), uncompressed bytes, and Unix time of unpacking.

    lower: the layers below that the tree depends on (`publisher.images.place.chain`); None if it is the same over any. This and
    the notes are members of our own, which readers of the others pass over.
    """
    own = {"notes": notes.as_dict()} | ({} if lower is None else {"lower": lower})
    whole = int(created)
    nanoseconds = int((created - whole) * 1_000_000_000)
    return _document(
        [
            {
                "id": diff_id.hex,
                "created": f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z",
                "compressed-diff-digest": str(layer),
                "diff-digest": str(diff_id),
                "diff-size": size,
                **own,
            }
        ]
    )


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """What is known of a layer that was unpacked. size: bytes of its uncompressed archive."""

    diff_id: Digest
    size: int
    notes: Notes
    lower: str | None = None


def parse_layers_json(document: bytes) -> LayerFacts:
    """What `layers_json` wrote, here or elsewhere; without notes, if it has none. Raises InvalidInput."""
    try:
        (content,) = json.loads(document)
        size = content["diff-size"]
        if not isinstance(size, int) or isinstance(size, bool):
            raise InvalidInput("a layer's layers.json has no size in bytes")
        lower = content.get("lower")
        if lower is not None and not isinstance(lower, str):
            raise InvalidInput("a layer's layers.json has something else than a text as its 'lower'")
        return LayerFacts(Digest.parse(content["diff-digest"]), size, Notes.of(content.get("notes")), lower)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InvalidInput(f"a layer's layers.json does not describe one layer: {error}") from error


def origin_json(config: Digest, existing: bytes | None = None) -> bytes:
    """The config digests of the images that use a layer: those of the existing document, and this one.

    Raises InvalidInput if the existing document is something else.
    """
    configs = [] if existing is None else _origins(existing)
    if str(config) not in configs:
        configs.append(str(config))
    return _document({"origin": configs})


def without_origins(document: bytes, gone: Collection[Digest]) -> bytes | None:
    """The document without these images; None if a layer with it has no user left. Raises InvalidInput."""
    removed = {str(config) for config in gone}
    configs = [origin for origin in _origins(document) if origin not in removed]
    return _document({"origin": configs}) if configs else None


def _origins(document: bytes) -> list[str]:
    try:
        content = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"a layer's origin.json is not JSON: {error}") from error
    origins = content.get("origin") if isinstance(content, dict) else None
    if not isinstance(origins, list) or not all(isinstance(origin, str) for origin in origins):
        raise InvalidInput("a layer's origin.json has no list of strings as its 'origin'")
    return origins


def _document(content: object) -> bytes:
    return json.dumps(content, indent=2).encode("ascii") + b"\n"
