"""JSON documents of foreign origin. Pure."""

from __future__ import annotations

import json
from typing import Any

from mirror.errors import InvalidInput


def json_object(raw: bytes, what: str) -> dict[str, Any]:
    """The members of a JSON object. what: names the document in messages. Raises InvalidInput if it is anything else."""
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the {what} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidInput(f"the {what} is not a JSON object")
    return document
