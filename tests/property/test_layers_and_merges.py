"""Random trees through tar and back, and random stacks of layers against a slow and simple model of applying them in turn."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from publisher.cvmfs.entry import Directory
from publisher.errors import BrokenLayer, UnsafeLayer
from publisher.layers.merge import merge
from publisher.objects.pipeline import PipelineLimits
from tests.support.compressed import chunked, estargz, zstandard
from tests.support.layers import content_of, ingest
from tests.support.memory_store import MemoryStore

CHUNKING = PipelineLimits(chunk_above=300, chunk_size=200, bytes_in_flight=4096, batch=512, batch_files=3, threads=2)

names = st.binary(min_size=1, max_size=30).filter(
    lambda name: not set(name) & {0, 0x2F} and name not in (b".", b"..") and not name.startswith((b".wh.", b".cvmfs"))
)


@dataclass(frozen=True)
class Thing:
    kind: bytes
    mode: int
    uid: int
    mtime: int
    content: bytes = b""
    target: bytes = b""


def things(kind: bytes) -> st.SearchStrategy[Thing]:
    return st.builds(
        Thing,
        kind=st.just(kind),
        mode=st.integers(0, 0o7777),
        uid=st.integers(0, 4294967294),
        mtime=st.integers(-(2**40), 2**40),
        content=st.binary(max_size=1000) if kind == tarfile.REGTYPE else st.just(b""),
        target=st.binary(min_size=1, max_size=200).filter(lambda t: 0 not in t) if kind == tarfile.SYMTYPE else st.just(b""),
    )


leaves = st.one_of(*(things(kind) for kind in (tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE)))
trees = st.recursive(
    st.dictionaries(names, leaves, max_size=4),
    lambda below: st.dictionaries(names, st.one_of(leaves, st.tuples(things(tarfile.DIRTYPE), below)), max_size=4),
    max_leaves=15,
)
Tree = dict[bytes, "Thing | tuple[Thing, Tree]"]


def write(tree: Tree, tar: tarfile.TarFile, prefix: bytes = b"") -> dict[bytes, Thing]:
    """Add a tree to an archive; every path with what is there."""
    written: dict[bytes, Thing] = {}
    for name, node in tree.items():
        thing, below = node if isinstance(node, tuple) else (node, None)
        path = prefix + name
        info = tarfile.TarInfo(path.decode("utf-8", "surrogateescape"))
        info.type, info.mode, info.uid, info.mtime = thing.kind, thing.mode, thing.uid, thing.mtime
        info.linkname = thing.target.decode("utf-8", "surrogateescape")
        info.size = len(thing.content)
        tar.addfile(info, io.BytesIO(thing.content))
        written[path] = thing
        if below is not None:
            written |= write(below, tar, path + b"/")
    return written


def facts(store: MemoryStore, tree: Directory) -> dict[bytes, Thing]:
    kinds = {
        stat.S_IFREG: tarfile.REGTYPE,
        stat.S_IFDIR: tarfile.DIRTYPE,
        stat.S_IFLNK: tarfile.SYMTYPE,
        stat.S_IFIFO: tarfile.FIFOTYPE,
    }
    return {
        path: Thing(
            kinds[stat.S_IFMT(entry.mode)],
            stat.S_IMODE(entry.mode),
            entry.uid,
            entry.mtime,
            content_of(store, entry) if stat.S_ISREG(entry.mode) else b"",
            entry.symlink,
        )
        for path, entry in tree.walk()
    }


@settings(max_examples=80, deadline=None)
@given(trees, st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]), st.booleans())
def test_a_tree_comes_back_from_an_archive(tree: Tree, format_: int, packed: bool) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=format_, encoding="utf-8", errors="surrogateescape") as tar:
        written = write(tree, tar)
    raw = stream.getvalue()
    layer = ingest(gzip.compress(raw, 1) if packed else raw, tar=raw, pipeline_limits=CHUNKING)
    assert facts(layer.store, layer.tree) == written
    assert layer.result.entries == len(written)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.binary(min_size=512, max_size=512), st.binary(max_size=40)), max_size=6), st.booleans(), st.data())
def test_noise_is_an_archive_or_refused(noise: list[bytes], packed: bool, data: st.DataObject) -> None:
    """And the same for a good archive with some bytes changed."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("é" * 120, "b/c", "b"):
            tar.addfile(tarfile.TarInfo(name))
    raw = bytearray(b"".join(noise) + stream.getvalue())
    for position in data.draw(st.lists(st.integers(0, len(raw) - 1), max_size=4)):
        raw[position] = data.draw(st.integers(0, 255))
    blob = gzip.compress(bytes(raw), 1) if packed else bytes(raw)
    refusal = ""
    try:
        ingest(blob, tar=bytes(raw), pipeline_limits=CHUNKING)
    except (BrokenLayer, UnsafeLayer) as refused:
        refusal = str(refused)
    assert refusal.isprintable()


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([zstandard, chunked, estargz]), st.data())
def test_a_damaged_compressed_layer_is_what_it_was_or_refused(packer: Callable[[bytes], bytes], data: st.DataObject) -> None:
    raw = b"".join(tarfile.TarInfo(name).tobuf() for name in ("a", "b/c", "d" * 90)) + bytes(1024)
    blob = bytearray(packer(raw))
    for position in data.draw(st.lists(st.integers(0, len(blob) - 1), min_size=1, max_size=4)):
        blob[position] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(blob)))
    damaged = bytes(blob[cut:] + blob[:cut] if data.draw(st.booleans()) else blob[:cut])
    refusal = ""
    try:
        assert ingest(damaged, tar=raw).result.entries == 4
    except (BrokenLayer, UnsafeLayer) as refused:
        refusal = str(refused)
    assert refusal.isprintable()


small_names = st.sampled_from([b"a", b"b", b"c"])
small_paths = st.lists(small_names, min_size=1, max_size=3).map(b"/".join)


@dataclass(frozen=True)
class Step:
    """One member of a layer: a directory, a file of some size, a deletion, or an opaque mark."""

    action: str
    path: bytes
    size: int


steps = st.builds(Step, st.sampled_from(["dir", "file", "delete", "opaque"]), small_paths, st.integers(1, 99))


def as_archive(layer: list[Step]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for step in layer:
            parent, _, name = step.path.rpartition(b"/")
            marked = (parent + b"/" if parent else b"") + b".wh." + name
            path = {"delete": marked, "opaque": step.path + b"/.wh..wh..opq"}.get(step.action, step.path)
            info = tarfile.TarInfo(path.decode())
            info.type = tarfile.DIRTYPE if step.action == "dir" else tarfile.REGTYPE
            info.size = step.size if step.action == "file" else 0
            info.mode = 0o700 + step.size % 64 if step.action == "dir" else 0o644
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    return stream.getvalue()


Model = dict[bytes, int]
"""Path to size of a file, or to minus the mode of a directory."""


def below(path: bytes, other: bytes) -> bool:
    return other.startswith(path + b"/")


def without(model: Model, path: bytes, *, itself: bool) -> Model:
    return {other: value for other, value in model.items() if not below(path, other) and not (itself and other == path)}


def outcome(layer: list[Step]) -> tuple[Model, set[bytes]] | None:
    """What a layer has of its own, and which of its directories are only implied; None if a file were a directory."""
    own: Model = {}
    implied: set[bytes] = set()
    for step in layer:
        parts = step.path.split(b"/")
        parents = [b"/".join(parts[:count]) for count in range(1, len(parts) + (step.action == "opaque"))]
        if any(own.get(parent, 0) > 0 for parent in parents):
            return None
        if step.action == "delete":
            continue  # deletions make no directory
        implied |= {parent for parent in parents if parent not in own}
        own |= dict.fromkeys((parent for parent in parents if parent not in own), -0o755)
        if step.action == "dir":
            own[step.path] = -(0o700 + step.size % 64)
            implied.discard(step.path)
        elif step.action == "file":
            own = {**without(own, step.path, itself=True), step.path: step.size}
            implied = {path for path in implied if path in own and path != step.path}
    return own, implied


def applied(model: Model, own: Model, implied: set[bytes], layer: list[Step]) -> Model:
    """The model with a layer on top: first all its deletions, then its entries. A file deletes what was there before."""
    for step in layer:
        if step.action != "dir":
            model = without(model, step.path, itself=step.action != "opaque")
    for path, value in own.items():
        if value > 0 or model.get(path, -1) > 0:
            model = without(model, path, itself=True)
        if not (path in implied and path in model):
            model[path] = value
    return model


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(steps, max_size=8), max_size=4))
def test_a_stack_of_layers_is_what_applying_them_in_turn_gives(stack: list[list[Step]]) -> None:
    model: Model = {}
    trees: list[Directory] = []
    for layer in stack:
        effect = outcome(layer)
        if effect is None:
            continue
        model = applied(dict(model), *effect, layer)
        trees.append(ingest(as_archive(layer), lower=lambda: merge(trees)).tree)
    flat = {path: -stat.S_IMODE(entry.mode) if entry.is_directory else entry.size for path, entry in merge(trees).walk()}
    assert flat == model
