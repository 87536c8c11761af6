"""What a manifest is, the registry says that is asked for it, also where another one has the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirror.oci.manifest import OCI_MANIFEST
from tests.support.faulty_registry import FaultyRegistry
from tests.support.mirror_server import add_image, mirror_server

OTHER_TYPE = "application/vnd.other+json"
GOOD, OTHER = "team/app", "/v2/other.test/some/app"


@pytest.mark.parametrize("first", ["the other one", "this one"])
@pytest.mark.parametrize("by", ["tag", "digest"])
async def test_of_the_same_bytes_each_registry_says_what_they_are(tmp_path: Path, first: str, by: str) -> None:
    async with FaultyRegistry() as registry:
        for _ in range(2):  # Then once more, with what is in the state database.
            async with mirror_server(tmp_path, upstreams={"other.test": {"url": registry.url}}) as mirror:
                image = add_image(mirror.hub, GOOD, "1", b"layer")
                registry.add_manifest("some/app", "1", image.raw, OTHER_TYPE)
                asked = {"tag": "1", "digest": str(image.digest)}[by]
                expected = {f"/v2/{GOOD}": OCI_MANIFEST, OTHER: OTHER_TYPE}
                order = sorted(expected, reverse=first == "the other one")
                for path in [*order, *order]:
                    for reference in (asked, image.digest):
                        answer = await mirror.get(f"{path}/manifests/{reference}")
                        assert (answer.status, answer.body) == (200, image.raw)
                        assert answer.headers["Content-Type"] == expected[path], (path, reference)
