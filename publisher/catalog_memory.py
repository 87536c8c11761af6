"""Catalogs that a repository's last transactions used, ready to be changed again without being fetched, inflated and loaded.

They are known by the hash of their object, so a catalog from here is always the right one, whoever published meanwhile.
"""

from __future__ import annotations

from cachetools import LRUCache

from publisher.cvmfs.editor import CatalogEditor
from publisher.cvmfs.hash import ContentHash

DEFAULT_BYTES = 64 << 20


class CatalogMemory:
    """Holds editors that no transaction uses; those unused for longest go first. To be used under the repository's lock."""

    def __init__(self, size: int = DEFAULT_BYTES) -> None:
        """size: bytes, about, of all that is held."""
        self._held: LRUCache[tuple[bytes, ContentHash], CatalogEditor] = LRUCache(size, getsizeof=lambda editor: editor.memory)

    def take(self, path: bytes, content: ContentHash) -> CatalogEditor | None:
        """The catalog of this path and hash, for one transaction alone; None if it is not here."""
        return self._held.pop((path, content), None)

    def keep(self, editor: CatalogEditor) -> None:
        """Give back what a transaction has done with; what was changed and not stored is dropped."""
        if editor.changed or editor.content is None or editor.memory > self._held.maxsize:
            editor.close()
        else:
            self._held[editor.path, editor.content] = editor
