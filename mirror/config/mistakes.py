"""What is wrong with a configuration, in words: where it stands, what was given, what is allowed.

Nothing given is repeated in a message where it could be a secret.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from mirror.config.models import Config, NamespaceSettings, UpstreamSettings
from mirror.config.values import DURATION, Unit
from mirror.errors import InvalidInput

Place = tuple[str | int, ...]
"""Path of keys from the top of the file; numbers are positions in lists."""

_SECRET_KEY = re.compile(r"pass|secret|token|auth|credential", re.IGNORECASE)
_USER_INFO = re.compile(r"//[^/@\s]*@")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_LONGEST_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing to mend."""

    source: str
    """The file's path, or `command line`."""
    place: str
    """The key's path as the file has it; empty if it is about the file as a whole."""
    problem: str

    def __str__(self) -> str:
        return f"{self.source}: {self.place}: {self.problem}" if self.place else f"{self.source}: {self.problem}"


class ConfigError(InvalidInput):
    """The settings cannot be used; `mistakes` has all of them, the message lists them one a line."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        super().__init__("\n".join(str(mistake) for mistake in mistakes))
        self.mistakes = tuple(mistakes)


def place_of(detail: ErrorDetails) -> Place:
    """Where the mistake is; pydantic puts `[key]` behind a table's name that is itself wrong."""
    return tuple(part for part in detail["loc"] if part != "[key]")


def mistake_of(detail: ErrorDetails, source: str) -> Mistake:
    """The words for one of pydantic's findings."""
    place = place_of(detail)
    return Mistake(source, key_path(place), _problem(detail, place))


def key_path(place: Place) -> str:
    """The place as TOML would have it, such as `upstreams."docker.io".url` or `publish.platforms[1]`."""
    text = ""
    for part in place:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if _BARE_KEY.fullmatch(part) else f".{json.dumps(part)}"
    return text.removeprefix(".")


def hide_credentials(text: str) -> str:
    """The text without what stands before the @ of a URL."""
    return _USER_INFO.sub("//[hidden]@", text)


def _problem(detail: ErrorDetails, place: Place) -> str:
    if detail["type"] == "extra_forbidden":
        return _unknown_key(place)
    given = f"{_shown(place, detail['input'])} is given"
    if detail["type"] == "value_error":
        return f"{given}, expected is {detail['msg'].removeprefix('Value error, ')}"
    field = _field(place)
    if field is None or (field.annotation is not None and _is_table(field.annotation)):
        return f"{given}, expected is a table of settings" if detail["type"] == "model_type" else f"{given}: {detail['msg']}"
    return f"{given}, allowed is {allowed_text(field)}"


def _unknown_key(place: Place) -> str:
    key = str(place[-1])
    model = _model(place[:-1])
    known = sorted(model.model_fields) if model is not None else []
    if model in (UpstreamSettings, NamespaceSettings) and _SECRET_KEY.search(key):
        return "unknown key; a secret has no place in this file, name the file that holds it with 'password_file'"
    if place[0] == "upstreams" and len(place) == 3 and key not in known and _looks_like_suffix(key):
        name = f"{place[1]}.{key}"
        return f'unknown key; a registry\'s name goes in quotes: [upstreams."{name}"]'
    close = difflib.get_close_matches(key, known, n=1)
    advice = f", did you mean '{close[0]}'?" if close else "."
    return f"unknown key{advice} Known here are {', '.join(known)}"


def _looks_like_suffix(key: str) -> bool:
    """Whether an unquoted `[upstreams.quay.io]` is the likely reason for this key."""
    return key.isascii() and key.isalpha() and key.islower() and not difflib.get_close_matches(key, UpstreamSettings.model_fields)


def allowed_text(field: FieldInfo) -> str:
    """The values that a setting takes, in words."""
    annotation = field.annotation
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(f'"{choice}"' for choice in get_args(annotation))
    if annotation is bool:
        return "true or false"
    low = next((item.ge for item in field.metadata if isinstance(item, Ge)), None)
    high = next((item.le for item in field.metadata if isinstance(item, Le)), None)
    unit = next((item for item in field.metadata if isinstance(item, Unit)), None)
    if unit is not None:
        whole = " in whole seconds" if annotation is int and unit is DURATION else ""
        return f"a {unit.name} from {unit.show(low)} to {unit.show(high)}{whole}"  # type: ignore[arg-type]
    if annotation in (int, float):
        return f"a {'whole ' if annotation is int else ''}number from {low} to {high}"
    shortest = next((item.min_length for item in field.metadata if isinstance(item, MinLen)), 0)
    longest = next((item.max_length for item in field.metadata if isinstance(item, MaxLen)), None)
    if get_origin(annotation) is tuple:
        return f"a list of {shortest} to {longest} texts"
    return "a text" + (f" of at most {longest} characters" if longest is not None else "")


def _shown(place: Place, given: Any) -> str:
    if any(isinstance(part, str) and _SECRET_KEY.search(part) and part != "password_file" for part in place):
        return "something"
    if isinstance(given, dict):
        return "a table"
    text = hide_credentials(json.dumps(given, default=str, ensure_ascii=True))
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "..."


def _field(place: Place) -> FieldInfo | None:
    names = [part for part in place if isinstance(part, str)]
    model = _model(tuple(names[:-1])) if names else None
    return model.model_fields.get(names[-1]) if model is not None else None


def _model(place: Place) -> type[BaseModel] | None:
    """The model of the table at this place."""
    model: type[BaseModel] | None = Config
    named: type[BaseModel] | None = None
    for part in place:
        if model is None:  # The name of a table among others of its kind.
            model, named = named, None
            continue
        field = model.model_fields.get(str(part))
        if field is None:
            return None
        annotation = field.annotation
        named = get_args(annotation)[1] if get_origin(annotation) is dict else None
        model = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
        if model is None and named is None:
            return None
    return model


def _is_table(annotation: Any) -> bool:
    return get_origin(annotation) is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel | NoneType))
