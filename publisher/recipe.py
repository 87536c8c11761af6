"""Wish lists in the form that CernVM-FS's DUCC reads, version 1. Pure.

    version: 1
    user: ...                   DUCC's account for what it pushes; not used here
    cvmfs_repo: ...             not used here: the publisher chooses among its own repositories
    output_format: ...          how DUCC names its thin images; not used here
    input:
      - 'https://registry.hub.docker.com/library/debian:12'
      - 'gitlab-registry.cern.ch/team/app:v1.*'
      - 'quay.io/team/tool@sha256:...'

Source: DUCC's documentation, "Recipe Syntax v1", and what its parser takes. An entry is `[scheme://]registry/repository[:tag]
[@digest]`; `*` in the tag is any run of characters, and nothing else there has a special meaning. As everywhere in this project a
digest decides where there is a tag besides, and `latest` is meant where there is neither, which DUCC cannot convert.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import yaml

from mirror.errors import InvalidInput
from mirror.oci.reference import ImageReference, Reference, RepositoryName, looks_like_host, strip_scheme

MAX_RECIPE = 1 << 20
"""Bytes of a wish list."""
MAX_DEPTH = 8
"""Collections in one another; the format needs two."""
MAX_ENTRY = 1000
"""Characters of one entry."""

_WILDCARD = "*"
_PATTERN = re.compile(r"[a-zA-Z0-9_*][a-zA-Z0-9._*-]{0,127}", re.ASCII)
_STRING, _INTEGER, _NULL = "tag:yaml.org,2002:str", "tag:yaml.org,2002:int", "tag:yaml.org,2002:null"


@dataclass(frozen=True, slots=True)
class Wish:
    """One entry: an image, or all images of a repository whose tags match a pattern. line: in the wish list, from 1."""

    line: int
    name: RepositoryName
    reference: Reference | None
    """None if there is a pattern."""
    pattern: str = ""

    def matches(self, image: ImageReference) -> bool:
        """Whether the wish stands for this image."""
        if image.name != self.name:
            return False
        if self.reference is not None:
            return image.reference == self.reference
        return image.reference.tag is not None and fnmatchcase(image.reference.tag, self.pattern)

    def __str__(self) -> str:
        return f"{self.name}:{self.pattern}" if self.reference is None else str(ImageReference(self.name, self.reference))


@dataclass(frozen=True, slots=True)
class BadEntry:
    """What is wrong with one line."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """A wish list. Entries that cannot be understood are in `mistakes`; the others count nevertheless."""

    wishes: tuple[Wish, ...]
    mistakes: tuple[BadEntry, ...]


def parse_recipe(raw: bytes) -> Recipe:
    """Read a wish list. Raises InvalidInput if it is none at all; mistakes of single lines are in the result."""
    root = _compose(raw)
    if not isinstance(root, yaml.MappingNode):
        raise InvalidInput("the recipe is no list of settings such as 'version: 1' and 'input:'")
    settings, mistakes = _settings(root)
    version = settings.get("version")
    if version is not None and not (version.tag == _INTEGER and version.value == "1"):
        raise InvalidInput(f"line {_line(version)}: the recipe is not of version 1, the only one that is understood")
    wishes: list[Wish] = []
    for entry in _entries(settings.get("input")):
        try:
            wishes.append(_wish(entry))
        except InvalidInput as error:
            mistakes.append(BadEntry(_line(entry), str(error)))
    return Recipe(tuple(wishes), tuple(mistakes))


def _settings(root: yaml.MappingNode) -> tuple[dict[str, yaml.Node], list[BadEntry]]:
    settings: dict[str, yaml.Node] = {}
    mistakes: list[BadEntry] = []
    for key, value in root.value:
        if not isinstance(key, yaml.ScalarNode):
            mistakes.append(BadEntry(_line(key), "a setting's name is expected"))
        elif key.value in settings:
            mistakes.append(BadEntry(_line(key), f"{_shown(key.value)} is there twice"))
        else:
            settings[key.value] = value
    return settings, mistakes


def _entries(listed: yaml.Node | None) -> list[yaml.Node]:
    if listed is None:
        raise InvalidInput("the recipe has no 'input:', the list of images")
    if isinstance(listed, yaml.SequenceNode):
        return list(listed.value)
    if listed.tag == _NULL:
        return []
    raise InvalidInput(f"line {_line(listed)}: 'input:' is no list of images, each behind a '-'")


def _wish(entry: yaml.Node) -> Wish:
    if not isinstance(entry, yaml.ScalarNode) or entry.tag != _STRING:
        raise InvalidInput("an image is expected, as registry/repository:tag; put it in quotes")
    text: str = entry.value.strip()
    if len(text) > MAX_ENTRY:
        raise InvalidInput(f"an image's name of {len(text)} characters, more than the {MAX_ENTRY} that are read")
    if not text.isascii() or not text.isprintable() or " " in text:
        raise InvalidInput(f"{_shown(text)} has characters that no image's name has")
    bare = strip_scheme(text)
    registry, slash, rest = bare.partition("/")
    if not slash or not looks_like_host(registry):
        raise InvalidInput(f"'{text}' does not begin with a registry, such as docker.io/")
    rest, at, digest = rest.partition("@")
    repository, colon, tag = rest.partition(":")
    if at or _WILDCARD not in tag:
        image = ImageReference.parse(f"{registry}/{repository.strip('/')}{colon}{tag}{at}{digest}")
        return Wish(_line(entry), image.name, image.reference)
    if not _PATTERN.fullmatch(tag):
        raise InvalidInput(f"'{tag}' is no pattern of tags: letters, digits, _ . - and * for any characters, 128 at most")
    return Wish(_line(entry), RepositoryName.of(registry, repository.strip("/")), None, tag)


class _Loader(yaml.SafeLoader):
    """Makes nodes only, no objects; a few levels deep, and nothing twice."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            raise InvalidInput(f"line {line}: references ({_shown(f'*{event.anchor}')}) are not taken in recipes")
        if self.depth >= MAX_DEPTH:
            raise InvalidInput(f"line {line}: nested more than {MAX_DEPTH} levels deep")
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def _compose(raw: bytes) -> yaml.Node | None:
    if len(raw) > MAX_RECIPE:
        raise InvalidInput(f"the recipe has more than {MAX_RECIPE} bytes, which no wish list has")
    try:
        loader = _Loader(raw.decode("utf-8-sig"))
        try:
            node: yaml.Node | None = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark is not None else ""
        raise InvalidInput(
            f"{where}the recipe is not YAML: {_shown(error.problem or error.context or 'it breaks off')}"
        ) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # PyYAML lets the two latter through for escapes that are no characters.
        raise InvalidInput(f"the recipe is not YAML: {_shown(str(error))}") from error
    return node


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _shown(text: str) -> str:
    """Foreign text that is safe on a terminal."""
    return ascii(text[:200])
