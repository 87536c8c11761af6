"""Blobs of layers that are kept in the repository as they came, so that any web server can give them out."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

from click.testing import CliRunner

from mirror.jobs.blocks import Blocks
from mirror.jobs.packed_layers import PackedCopy, PackedLayers
from mirror.oci.digest import Digest
from mirror.oci.reference import ImageReference
from publisher.cli import main
from publisher.cvmfs.entry import Compression
from publisher.images import layout
from tests.support.faulty_registry import FaultyRegistry
from tests.support.publishing import FQRN, Publishing, offer, publishing
from tests.support.small_images import Image, Layer, file, tiny

APP = "hub.test/team/app"
ON = "packed_layers = true\nchunk = 1048576\n"


def large(text: bytes) -> Layer:
    """A layer whose blob is larger than a chunk of other files."""
    content = b"".join(hashlib.sha256(text + b"%d" % number).digest() for number in range(80_000))
    return Layer.of(file("data", content))


async def publish(here: Publishing, hub: FaultyRegistry, tag: str, image: Image) -> int:
    """The revision that has it."""
    await here.request(f"{APP}:{tag}", offer(hub, "team/app", tag, image))
    status = await here.published(f"{APP}:{tag}")
    assert status.publication is not None
    return status.publication.revision


async def copies(here: Publishing, layer: Layer) -> tuple[PackedCopy, ...]:
    return await PackedLayers(here.queue._database).copies(Digest.of(layer.packed))


def switched_on(here: Publishing) -> None:
    here.config = here.config.model_copy(update={"publish": here.config.publish.model_copy(update={"packed_layers": True})})


async def test_the_blob_is_one_object_as_it_is_in_the_revision_of_its_image(tmp_path: Path) -> None:
    image = Image((large(b"one"), *tiny().layers))
    async with FaultyRegistry() as hub, publishing(tmp_path, hub, ON) as here, here.publisher():
        revision = await publish(here, hub, "1", image)
        assert here.reader().manifest.revision == revision == 2
        for layer in image.layers:
            entry = here.reader().lookup(layout.packed_layer(Digest.of(layer.packed)))
            assert entry is not None
            assert (entry.compression, entry.chunks, entry.size) == (Compression.NONE, (), len(layer.packed))
            name = hashlib.sha1(layer.packed).hexdigest()
            stored = here.config.data / "cvmfs" / FQRN / "data" / name[:2] / name[2:]
            assert stored.read_bytes() == layer.packed, "a web server gives out the blob itself"
            assert stored.stat().st_mode & 0o777 == 0o644
            (copy,) = await copies(here, layer)
            assert copy == PackedCopy(Digest.of(layer.packed), FQRN, f"data/{name[:2]}/{name[2:]}", len(layer.packed), revision)
        assert not list((here.config.data / "spool" / FQRN / "packed").iterdir())
    assert here.problems() == []


async def test_off_by_default_and_a_limit_for_large_ones(tmp_path: Path) -> None:
    image = Image((large(b"one"), *tiny().layers))
    async with FaultyRegistry() as hub, publishing(tmp_path, hub) as here, here.publisher():
        await publish(here, hub, "1", image)
        assert [await copies(here, layer) for layer in image.layers] == [()] * len(image.layers)
    (tmp_path / "limit").mkdir()
    limited = f"{ON}packed_largest = 1048576\n"
    async with FaultyRegistry() as hub, publishing(tmp_path / "limit", hub, limited) as here, here.publisher():
        await publish(here, hub, "1", image)
        assert await copies(here, image.layers[0]) == ()
        assert len(await copies(here, image.layers[1])) == 1


async def test_a_layer_that_the_repository_has_gets_it_with_the_next_image(tmp_path: Path) -> None:
    shared = large(b"shared")
    async with FaultyRegistry() as hub, publishing(tmp_path, hub) as here:
        async with here.publisher():
            await publish(here, hub, "1", Image((shared, Layer.of(file("own", b"1")))))
        switched_on(here)
        async with here.publisher():
            revision = await publish(here, hub, "2", Image((shared, Layer.of(file("own", b"2")))))
        (copy,) = await copies(here, shared)
        assert copy.revision == revision
        async with here.publisher():
            await publish(here, hub, "3", Image((shared, Layer.of(file("own", b"3")))))
        assert await copies(here, shared) == (copy,), "it stays what it is"
    assert here.problems() == []


async def test_a_damaged_cache_never_gets_into_the_repository(tmp_path: Path) -> None:
    shared = large(b"shared")
    async with FaultyRegistry() as hub, publishing(tmp_path, hub) as here:
        async with here.publisher():
            await publish(here, hub, "1", Image((shared, Layer.of(file("own", b"1")))))
        switched_on(here)
        digest = Digest.of(shared.packed)
        blob = here.config.data / "blobs" / "sha256" / digest.hex[:2] / digest.hex
        middle = len(shared.packed) // 2
        blob.chmod(0o644)
        # Where the proof, which compares a part with the upstream's, hardly ever looks.
        blob.write_bytes(shared.packed[:middle] + bytes([shared.packed[middle] ^ 1]) + shared.packed[middle + 1 :])
        here.config = here.config.model_copy(
            update={"publish": here.config.publish.model_copy(update={"policy_file": _vouched_for(tmp_path)})}
        )
        async with here.publisher():
            await publish(here, hub, "2", Image((shared, Layer.of(file("own", b"2")))))
        assert await copies(here, shared) == ()
        assert here.reader().lookup(layout.packed_layer(digest)) is None
    assert here.problems() == []


def _vouched_for(directory: Path) -> str:
    """A policy by which nothing is compared with the upstream."""
    path = directory / "policy.toml"
    path.write_text('public = ["hub.test/**"]\n')
    return str(path)


async def test_a_removed_layer_is_taken_back_and_out_of_the_revision(tmp_path: Path) -> None:
    kept, gone = large(b"kept"), large(b"gone")
    async with FaultyRegistry() as hub, publishing(tmp_path, hub, ON) as here, here.publisher():
        await publish(here, hub, "1", Image((kept,)))
        image = Image((kept, gone))
        await publish(here, hub, "2", image)
        layers = PackedLayers(here.queue._database)
        before = await layers.changes(None)
        await Blocks(here.queue._database).add(
            [Digest.of(image.manifest)], ImageReference.parse(f"{APP}:2"), "leaks a secret", "anna"
        )
        left = await copies(here, gone)
        async with asyncio.timeout(20):
            while left:
                await asyncio.sleep(0.02)
                left = await copies(here, gone)
        assert (await layers.changes(before.came)).went > before.went
        assert len(await copies(here, kept)) == 1
        assert here.reader().lookup(layout.packed_layer(Digest.of(gone.packed))) is None
    assert here.problems() == []


async def test_rolling_back_takes_back_what_came_later(tmp_path: Path) -> None:
    early, late = large(b"early"), large(b"late")
    async with FaultyRegistry() as hub, publishing(tmp_path, hub, ON) as here:
        async with here.publisher():
            await publish(here, hub, "1", Image((early,)))
            await publish(here, hub, "2", Image((late,)))
        words = ["rollback", "--data", str(here.config.data), FQRN]
        result = await asyncio.to_thread(CliRunner().invoke, main, words)
        assert result.exit_code == 0, result.output
        assert await copies(here, late) == ()
        assert len(await copies(here, early)) == 1
