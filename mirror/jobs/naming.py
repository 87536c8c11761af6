"""How names take images and lose them, and what becomes of their public links. All within one `Change`.

Invariants:
- what was requested stays requested: a name that moves on before its image was published leaves it a name made of its digest;
- a link stays where it is until the image that its name stands for now is published: then it leads there, or, if that image is
  in another CVMFS repository or the name is no more, it is left over, and the repository's writer removes it.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from mirror.jobs.change import NOT_PUBLISHED, Change, is_name, is_of, parse_platform
from mirror.jobs.model import Leftover, PlatformName, Publication, PublishRequest, State
from mirror.oci.digest import Digest
from mirror.oci.platform import Platform
from mirror.oci.reference import ImageReference, Reference
from mirror.state.schema import images, names

_NO_LINK: dict[str, None] = {"link_fqrn": None, "link_path": None}


async def set_name(change: Change, request: PublishRequest) -> None:
    """Let a name stand for an image; it waits to be published there, unless it is already."""
    image, platform = request.image, request.platform
    before = await _row(change, image, platform)
    leads_to = {"target_digest": str(request.target), "manifest_digest": str(request.manifest)}
    if before is None:
        await change.add_name(request)
    elif before.manifest_digest == str(request.manifest):
        # At most another index that lists the same image: a path that is published stays right.
        await change.update_name(image, platform, **leads_to)
    else:
        await _leave_image(change, image, before)
        await change.update_name(image, platform, **leads_to, **NOT_PUBLISHED, requested_at=change.now)


async def set_artifact(change: Change, image: ImageReference, manifest: Digest) -> None:
    """Let a name stand for what is no image: nothing is to be published, and links that it had lead to something else."""
    for platform in await _platforms(change, image):
        await drop_name(change, image, platform)
    before = await _row(change, image, None)
    await set_name(change, PublishRequest(image, manifest, manifest))
    if before is not None:
        await _leave_link(change, before)
        await change.update_name(image, **NOT_PUBLISHED, **_NO_LINK)


async def drop_name(change: Change, image: ImageReference, platform: Platform | None) -> None:
    """Forget a name and let its link be removed; nothing happens if there is no such name."""
    row = await _row(change, image, platform)
    if row is not None:
        await _leave_image(change, image, row)
        await change.delete_name(image, platform)
        await _leave_link(change, row)


async def publish_name(
    change: Change, image: ImageReference, platform: Platform | None, manifest: str, publication: Publication
) -> None:
    """The name's link leads to this image now, whatever the name stands for by now."""
    link = Leftover(publication.fqrn, publication.path)
    row = await _row(change, image, platform)
    if platform is not None and (row is None or row.manifest_digest != manifest):
        row = await _take_platform(change, PlatformName(image, platform), manifest, row)
    if row is None:
        await change.add_leftover(link)
        return
    linked = {"link_fqrn": link.fqrn, "link_path": link.path}
    if row.manifest_digest == manifest:
        published: dict[str, Any] = {
            "fqrn": publication.fqrn,
            "path": publication.path,
            "revision": publication.revision,
            "published_at": change.now,
        }
        await change.update_name(image, platform, **published, **linked)
    else:
        await change.update_name(image, platform, **NOT_PUBLISHED, **linked)
        if State(row.state) is State.PUBLISHED:
            await change.set_state([row.manifest_digest], State.QUEUED, ready_at=change.now)
    if (row.link_fqrn, row.link_path) != (link.fqrn, link.path):
        await _leave_link(change, row)
    await change.delete_leftovers([link])


async def drop_outdated_platforms(change: Change, image: ImageReference, manifest: str) -> None:
    """Forget what the name stood for on platforms when it stood for something else, if it stands for this image now."""
    own = await _row(change, image, None)
    if own is None or own.manifest_digest != manifest:
        return
    for platform in await _platforms(change, image):
        row = await _row(change, image, platform)
        if row is not None and row.target_digest != own.target_digest:
            await drop_name(change, image, platform)


async def _take_platform(change: Change, name: PlatformName, manifest: str, row: Any) -> Any:
    """The row for a platform that only publishing has shown: made, or taken from what the name stood for before.

    It stays as it is, or is not made, if the name itself stands for another image by now.
    """
    own = await _row(change, name.image, None)
    if own is None or own.manifest_digest != manifest:
        return row
    await set_name(change, PublishRequest(name.image, Digest.parse(own.target_digest), Digest.parse(manifest), name.platform))
    return await _row(change, name.image, name.platform)


async def _leave_image(change: Change, image: ImageReference, row: Any) -> None:
    if row.published_at is None:
        left = Digest.parse(row.manifest_digest)
        await change.add_name(PublishRequest(ImageReference(image.name, Reference(digest=left)), left, left))


async def _leave_link(change: Change, row: Any) -> None:
    if row.link_fqrn is not None:
        await change.add_leftover(Leftover(row.link_fqrn, row.link_path))


async def _row(change: Change, image: ImageReference, platform: Platform | None) -> Any:
    statement = (
        select(
            names.c.target_digest,
            names.c.manifest_digest,
            names.c.published_at,
            names.c.link_fqrn,
            names.c.link_path,
            images.c.state,
        )
        .join(images, images.c.manifest_digest == names.c.manifest_digest)
        .where(*is_name(image, platform))
    )
    return (await change.connection.execute(statement)).one_or_none()


async def _platforms(change: Change, image: ImageReference) -> list[Platform]:
    """Platforms for which there are names."""
    statement = select(names.c.platform).where(*is_of(image), names.c.platform != "").order_by(names.c.platform)
    found = (parse_platform(text) for text in (await change.connection.execute(statement)).scalars())
    return [platform for platform in found if platform is not None]
