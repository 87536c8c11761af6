"""Names for revisions, given and taken away without a new revision. Repository format, section 5."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mirror.errors import InvalidInput, NotFound
from publisher.cvmfs.builder import store_metadata
from publisher.cvmfs.catalog import Catalog
from publisher.cvmfs.hash import ContentHash, ObjectKind
from publisher.cvmfs.history import TRUNK, TRUNK_PREVIOUS, History, Tag, check_tag_name
from publisher.cvmfs.manifest import RepositoryManifest
from publisher.errors import Conflict
from publisher.repository import Repository

_KEPT_BY_TOOLS = frozenset({TRUNK, TRUNK_PREVIOUS})


@dataclass(frozen=True, slots=True)
class NewTag:
    """A name for a revision: for the current one, or for the one with this root catalog."""

    name: str
    description: str = ""
    root: ContentHash | None = None


def change_tags(
    repository: Repository, add: Iterable[NewTag] = (), remove: Iterable[str] = (), *, move: bool = False, wait: float = 60.0
) -> list[Tag]:
    """Give names and take names away, and return those that were given. Blocking.

    move: let a name that exists lead to another revision. wait: seconds to wait for another writer.
    Raises InvalidInput for an impossible name, Conflict for one that exists, NotFound for one to be removed that does not exist
    or for a revision that is gone; RepositoryDamaged, StorageFull, Unavailable.
    """
    with repository.spool.lock(wait):
        base = repository.recover()
        history = _history(repository, base)
        known = history.tags()
        for name in remove:
            if name in _KEPT_BY_TOOLS:
                raise InvalidInput(f"'{name}' always names the newest revisions; it cannot be removed")
            if not history.remove(name):
                raise NotFound(f"there is no named snapshot '{name}' in {repository.fqrn}")
        given = [_tag(repository, base, new) for new in add]
        for tag in given:
            if tag.name in _KEPT_BY_TOOLS:
                raise InvalidInput(f"'{tag.name}' is kept for the newest revisions; choose another name")
            if tag.name in known and not move:
                raise Conflict(f"'{tag.name}' names revision {known[tag.name].revision} already; remove the name, or move it")
            history.put(tag)
        tags = history.tags()
        if tags != known:
            stored = store_metadata(repository.store, history.serialise(base.history), ObjectKind.HISTORY) if tags else None
            repository.publish_again(base, stored)
        return given


def find_tag(history: History | None, name: str, fqrn: str) -> Tag:
    """A named snapshot. Raises NotFound."""
    tags = history.tags() if history is not None else {}
    if name not in tags:
        raise NotFound(f"there is no named snapshot '{name}' in {fqrn}; there are: {', '.join(tags) or 'none'}")
    return tags[name]


def _history(repository: Repository, base: RepositoryManifest) -> History:
    if base.history is None:
        return History.empty(repository.fqrn)
    return History(repository.objects.metadata(base.history, ObjectKind.HISTORY), repository.fqrn)


def _tag(repository: Repository, base: RepositoryManifest, new: NewTag) -> Tag:
    check_tag_name(new.name)
    root = new.root or base.root
    if not repository.store.contains(root, ObjectKind.CATALOG):
        raise NotFound(f"there is no revision with the root catalog {root} in {repository.fqrn}")
    data = repository.objects.metadata(root, ObjectKind.CATALOG)
    catalog = Catalog(data)
    modified = base.timestamp if root == base.root else catalog.last_modified
    return Tag(new.name, root, catalog.revision, modified, len(data), new.description)
