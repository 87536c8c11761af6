"""An image on its way into a repository: what is lacking is unpacked, then the flat root is merged, by metadata only.

Layers are unpacked while they arrive (`publisher.arriving`), and their objects stored as they come; nothing is visible until a
transaction names them (`publisher.images.place`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event
from time import monotonic
from typing import ParamSpec, TypeVar

import structlog
from cachetools import LRUCache

from mirror.errors import InvalidInput, NotAnImage, StorageFull
from mirror.jobs.model import Job, State
from mirror.jobs.notes import Notes
from mirror.oci.digest import Digest
from mirror.oci.manifest import Descriptor, ImageConfig, ImageManifest, parse_config
from mirror.oci.reference import RepositoryName
from mirror.upstream.flight import SingleFlight
from publisher.arriving import ArrivingBlob
from publisher.cvmfs.entry import Directory
from publisher.cvmfs.path import show
from publisher.cvmfs.reader import RepositoryReader
from publisher.errors import WrittenWrong
from publisher.images import layout, metadata
from publisher.images.names import own_names, platform_names
from publisher.images.place import PreparedImage, UnpackedLayer, chain
from publisher.images.singularity import with_singularity_files
from publisher.images.tree_digest import digest_of
from publisher.layers.ingest import LayerResult, ingest_layer
from publisher.layers.limits import LayerLimits
from publisher.layers.listing import first_misplaced
from publisher.layers.marker_files import without_marker_files
from publisher.layers.merge import merge
from publisher.layers.permissions import PermissionPolicy, apply_permissions
from publisher.layers.policy import LayerPolicy
from publisher.packed_layers import PackedLayer, PackedLayers
from publisher.policy.sizes import Measure
from publisher.public import MAX_CONFIG, PublicContent, PublicManifest
from publisher.sif import image as sif
from publisher.sif.facts import SifFacts
from publisher.sif.image import SifRules
from publisher.stratum0 import Stratum0

log = structlog.get_logger()

OnState = Callable[[State], Awaitable[None]]
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class UnpackLimits:
    """Bounds of unpacking."""

    layer: LayerLimits
    images: int = 4
    """Worked on at the same time; of each, one layer is unpacked at a time."""
    remembered_entries: int = 300_000
    """Of layer trees kept in memory, about half a kilobyte each: images that come together share their lower layers."""


class Unpacker:
    """Prepares images for one repository; safe for several images at a time."""

    def __init__(
        self,
        content: PublicContent,
        stratum0: Stratum0,
        limits: UnpackLimits,
        policy: LayerPolicy | None = None,
        permissions: PermissionPolicy | None = None,
        *,
        packed: PackedLayers | None = None,
    ) -> None:
        """policy: default `LayerPolicy()`. permissions: of flat roots; default `PermissionPolicy()`.

        packed: keeps the blobs of layers as well; None if that is not wanted.
        """
        self._packed = packed
        self._policy = policy or LayerPolicy()
        self._permissions = permissions or PermissionPolicy()
        self._content = content
        self._stratum0 = stratum0
        self._limits = limits
        self._known: LRUCache[Digest, UnpackedLayer] = LRUCache(limits.remembered_entries, getsizeof=_weight)
        self._flights: SingleFlight[Digest, UnpackedLayer] = SingleFlight()
        self._stopping = Event()
        # Of our own: a thread here may wait for a hub for minutes, and those of the event loop resolve that hub's name.
        self._threads = ThreadPoolExecutor(limits.images, thread_name_prefix="layers")

    async def prepare(self, job: Job, public: PublicManifest, on_state: OnState, measure: Measure) -> PreparedImage:
        """Everything that a transaction needs to publish the image.

        on_state: told when everything has arrived that is to be unpacked, which is done on the way as far as it goes.
        measure: adds up the layers, and raises AgainstPolicy when they are too much.
        Raises Denied if a part of it is not public; InvalidInput, UnsafeLayer, BrokenLayer, IntegrityError for what can never be
        published; NotFound, Unavailable, StorageFull for what may be published later.
        """
        name, manifest = job.source, public.manifest
        await self._content.prove(name, manifest)
        if manifest.sif is not None:
            return await self._prepare_sif(job, public, manifest.sif, on_state, measure)
        raw_config = await self._content.small_blob(name, manifest.config, MAX_CONFIG)
        config = parse_config(raw_config)
        if len(config.diff_ids) != len(manifest.layers):
            raise InvalidInput(f"the image has {len(manifest.layers)} layers, but its config names {len(config.diff_ids)}")
        repository = self._stratum0.repository
        view = _View(repository.clock(), await asyncio.to_thread(repository.reader))
        if config.platform.is_unknown:
            raise NotAnImage(f"{name}@{job.manifest} is for no machine, as attestations are: it is mirrored, and not unpacked")
        platforms = platform_names(job.requests, config.platform)
        image = PreparedImage(
            job.manifest, public.raw, manifest, own_names(job.requests), raw_config=raw_config, platforms=platforms
        )
        if await asyncio.to_thread(_is_complete, view.reader, manifest):
            return replace(image, notes=await asyncio.to_thread(_notes_of_held, view.reader, manifest))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._fetch_lacking(name, manifest.layers, view.reader, on_state))
                layers = await self._layers(name, manifest, config, view, measure)
        except ExceptionGroup as failures:
            raise _first(failures) from failures
        flat = await asyncio.to_thread(self._flat, layers, config)
        notes = _total({layer.descriptor.digest: layer.notes for layer in layers})
        return replace(image, layers=tuple(layers), flat=flat, flat_digest=await asyncio.to_thread(digest_of, flat), notes=notes)

    async def close(self) -> None:
        """Give up layers that are being unpacked, and return when no thread works on one any more."""
        self._stopping.set()
        await self._flights.close()
        self._threads.shutdown()

    async def _prepare_sif(
        self, job: Job, public: PublicManifest, file: Descriptor, on_state: OnState, measure: Measure
    ) -> PreparedImage:
        """A SIF image has no layers, and nobody could lay anything over it: its root file system is all that is published."""
        repository = self._stratum0.repository
        since = repository.clock()
        reader = await asyncio.to_thread(repository.reader)
        image = PreparedImage(job.manifest, public.raw, public.manifest, own_names(job.requests), safe_since=since)
        if await asyncio.to_thread(reader.lookup, layout.flat_root(image.config)) is not None:
            facts = SifFacts.parse(await asyncio.to_thread(reader.read, layout.sif_document(image.config)))
            measure.add(facts.size, facts.entries)
            return replace(image, notes=facts.notes, platforms=platform_names(job.requests, facts.platform))
        path = await self._content.proven_blob(job.source, file)
        await on_state(State.INGESTING)
        rules = SifRules(self._limits.layer, self._policy, self._permissions)
        flat, facts = await self._in_thread(sif.flat_root, path, self._stratum0.pipeline, rules, self._stopping.is_set)
        measure.add(facts.size, facts.entries)
        platforms = platform_names(job.requests, facts.platform)
        digest = await asyncio.to_thread(digest_of, flat)
        return replace(image, flat=flat, flat_digest=digest, notes=facts.notes, platforms=platforms, sif_facts=facts.as_json())

    async def _fetch_lacking(
        self, name: RepositoryName, layers: Sequence[Descriptor], reader: RepositoryReader, on_state: OnState
    ) -> None:
        """Bring the blobs that are to be unpacked into the mirror's store, all at the same time; then say so."""
        async with asyncio.TaskGroup() as group:
            for descriptor in dict.fromkeys(layers):
                if descriptor.digest not in self._known and not await _holds(reader, descriptor.digest):
                    group.create_task(self._content.proven_blob(name, descriptor))
        await on_state(State.INGESTING)

    async def _layers(
        self, name: RepositoryName, manifest: ImageManifest, config: ImageConfig, view: _View, measure: Measure
    ) -> list[UnpackedLayer]:
        """The layers one after the other, lowest first, each while it arrives."""
        layers: list[UnpackedLayer] = []
        for descriptor, diff_id in zip(manifest.layers, config.diff_ids, strict=True):
            layer = await self._layer(name, descriptor, diff_id, tuple(layers), view)
            measure.add(layer.size, layer.entries)
            layers.append(layer)
        return layers

    async def _layer(
        self, name: RepositoryName, layer: Descriptor, diff_id: Digest, below: Sequence[UnpackedLayer], view: _View
    ) -> UnpackedLayer:
        known = self._known.get(layer.digest)
        lower = chain(below)
        if (
            known is not None
            and known.diff_id == diff_id
            and known.lower in (None, lower)
            and known.safe_since >= self._stratum0.repository.spool.swept_before()
        ):
            return known
        work = partial(self._read_or_ingest, name, layer, diff_id, below, view)
        unpacked, _ = await self._flights.run(layer.digest, work)
        if unpacked.diff_id != diff_id:
            raise InvalidInput(f"layer {layer.digest} has the diff_id {unpacked.diff_id}, but the image's config says {diff_id}")
        if unpacked.lower not in (None, lower):
            # Links and directories of it are those of other layers than this image has. The layer's own directory stays.
            unpacked = await self._unpack(name, layer, diff_id, below, unpacked.packed)
        return unpacked

    async def _read_or_ingest(
        self, name: RepositoryName, layer: Descriptor, diff_id: Digest, below: Sequence[UnpackedLayer], view: _View
    ) -> UnpackedLayer:
        if await _holds(view.reader, layer.digest):
            unpacked = await asyncio.to_thread(_read, view, layer)
            if unpacked.packed is None:
                unpacked = replace(unpacked, packed=await self._pack(layer, partial(self._content.stored, layer.digest)))
        else:
            unpacked = await self._unpack(name, layer, diff_id, below)
        if _weight(unpacked) <= self._known.maxsize:
            self._known[layer.digest] = unpacked
        return unpacked

    async def _unpack(
        self,
        name: RepositoryName,
        layer: Descriptor,
        diff_id: Digest,
        below: Sequence[UnpackedLayer],
        packed: PackedLayer | None = None,
    ) -> UnpackedLayer:
        """packed: its blob, if that is in the repository's store already."""
        started = monotonic()
        since = min([self._stratum0.repository.clock(), *(lower.safe_since for lower in below)])
        with self._content.open(name, layer) as blob:
            await blob.started()
            async with aclosing(blob.spans()) as spans:
                result = await self._in_thread(self._ingest, ArrivingBlob(spans, self._stopping), diff_id, below)
            packed = packed or await self._pack(layer, blob.stored)
        log.info(
            "layer_ingested",
            fqrn=self._stratum0.fqrn,
            digest=str(layer.digest),
            entries=result.entries,
            size=result.size,
            seconds=round(monotonic() - started, 3),
        )
        lower = chain(below) if result.depends_on_lower else None
        return UnpackedLayer(layer, result.diff_id, result.tree, result.entries, result.size, result.notes, lower, since, packed)

    async def _pack(self, layer: Descriptor, find: Callable[[], Awaitable[Path | None]]) -> PackedLayer | None:
        """Keep the blob of a layer in the repository's store, if that is wanted and `find` tells a file that has it."""
        if self._packed is None:
            return None
        try:
            file = await find()
        except StorageFull:
            return None  # It passed by without being kept, the disk being full.
        return None if file is None else await self._in_thread(self._packed.keep, file, layer, self._stopping.is_set)

    async def _in_thread(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The function's result. Cancellation waits for its end: it uses what is closed next."""
        call = partial(copy_context().run, function, *args, **kwargs)
        work = asyncio.get_running_loop().run_in_executor(self._threads, call)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])
            work.exception()  # asked for, so that nobody reports it as forgotten
            raise

    def _ingest(self, blob: ArrivingBlob, diff_id: Digest, below: Sequence[UnpackedLayer]) -> LayerResult:
        lower = (lambda: merge([layer.tree for layer in below])) if below else None
        return ingest_layer(blob, diff_id, self._stratum0.pipeline, self._limits.layer, lower=lower, policy=self._policy)

    def _flat(self, layers: Sequence[UnpackedLayer], config: ImageConfig) -> Directory:
        trees = [layer.tree for layer in layers]
        flat = merge(trees)
        misplaced = first_misplaced(flat, trees)
        if misplaced is not None:
            raise WrittenWrong(f"the layers were not merged as they show: the first path that differs is /{show(misplaced)}")
        apply_permissions(flat, self._permissions)
        with_singularity_files(flat, config, self._stratum0.pipeline)
        return flat


@dataclass(frozen=True, slots=True)
class _View:
    """The repository as it was when the preparation of an image began; opened: Unix seconds, just before."""

    opened: float
    reader: RepositoryReader


def _first(failures: ExceptionGroup[Exception]) -> Exception:
    """One failure of several that came together."""
    failure = failures.exceptions[0]
    return _first(failure) if isinstance(failure, ExceptionGroup) else failure


def _weight(layer: UnpackedLayer) -> int:
    return layer.entries + 1


def _is_complete(reader: RepositoryReader, manifest: ImageManifest) -> bool:
    """Whether the repository has all of the image but, perhaps, the name that it is wanted under."""
    wanted = [layout.flat_root(manifest.config.digest), *(layout.layer_root(layer.digest) for layer in manifest.layers)]
    return all(reader.lookup(path) is not None for path in wanted)


async def _holds(reader: RepositoryReader, layer: Digest) -> bool:
    return await asyncio.to_thread(reader.lookup, layout.layer_root(layer)) is not None


def _read(view: _View, layer: Descriptor) -> UnpackedLayer:
    """A layer that the repository holds. Raises RepositoryDamaged."""
    reader = view.reader
    tree = without_marker_files(reader.tree(layout.layer_root(layer.digest)))
    facts = _facts(reader, layer.digest)
    entries = sum(1 for _ in tree.walk())
    packed = PackedLayer.of(reader.lookup(layout.packed_layer(layer.digest)))
    return UnpackedLayer(layer, facts.diff_id, tree, entries, facts.size, facts.notes, facts.lower, view.opened, packed)


def _notes_of_held(reader: RepositoryReader, manifest: ImageManifest) -> Notes:
    """Of an image all of whose layers the repository holds. Raises RepositoryDamaged."""
    return _total({layer.digest: _facts(reader, layer.digest).notes for layer in manifest.layers})


def _facts(reader: RepositoryReader, layer: Digest) -> metadata.LayerFacts:
    return metadata.parse_layers_json(reader.read(layout.layers_document(layer)))


def _total(notes: Mapping[Digest, Notes]) -> Notes:
    """Of layers by their digests: one that an image has twice counts once."""
    return sum(notes.values(), Notes())
