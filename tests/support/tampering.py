"""Catalogs that no tool of ours would write, published with proper hashes and signatures."""

from __future__ import annotations

from publisher.cvmfs.builder import Stamp, store_metadata
from publisher.cvmfs.editor import CatalogEditor
from publisher.cvmfs.hash import ObjectKind
from publisher.cvmfs.path import path_key
from publisher.repository import NewRoot, Repository


def tamper(repository: Repository, path: bytes, statements: str) -> None:
    """Change a catalog by SQL and publish it with proper hashes and signatures, but with nothing else put right."""
    base = repository.manifest()
    stamp = Stamp(base.revision + 1, base.timestamp)
    root = CatalogEditor(repository.objects.metadata(base.root, ObjectKind.CATALOG), b"", base.root)
    if path:
        reference = root.nested_towards(path)
        assert reference is not None
        data = changed(
            repository, CatalogEditor(repository.objects.metadata(reference.content, ObjectKind.CATALOG), path, None), statements
        )
        content = store_metadata(repository.store, data, ObjectKind.CATALOG)
        statements = f"UPDATE nested_catalogs SET sha1 = '{content}', size = {len(data)}"
    data = changed(repository, root, statements + f"; UPDATE properties SET value = '{stamp.revision}' WHERE key = 'revision'")
    new = NewRoot(store_metadata(repository.store, data, ObjectKind.CATALOG), len(data), stamp, base.history)
    repository.publish(new, repository.reflog(), base)


def changed(repository: Repository, catalog: CatalogEditor, statements: str) -> bytes:
    catalog._connection.executescript(statements)
    return catalog._connection.serialize()


def at(path: bytes) -> str:
    first, second = path_key(path)
    return f"WHERE md5path_1 = {first} AND md5path_2 = {second}"
