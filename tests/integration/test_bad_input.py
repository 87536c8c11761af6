"""What clients and images do wrong is answered in words, and disturbs nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.clients import Skopeo
from tests.support.debark_process import DebarkProcess
from tests.support.hub import READER, Hub
from tests.support.published import problems
from tests.support.small_images import broken, tiny
from tests.support.tool import ToolFailed


def test_a_broken_image_is_pulled_but_not_published_and_the_queue_goes_on(
    hub: Hub, debark: DebarkProcess, skopeo: Skopeo
) -> None:
    for tag, image in broken().items():
        image.push(hub.client(), "bad/broken", tag)
        copy = skopeo.pull(f"{debark.address}/hub.test/bad/broken:{tag}", tag)
        assert copy.differences(hub, "bad/broken", tag) == []
    tiny("after the broken").push(hub.client(), "bad/good", "1")
    skopeo.pull(f"{debark.address}/hub.test/bad/good:1", "good")
    debark.wait_for("hub.test/bad/good:1")
    for tag in broken():
        document = debark.wait_for(f"hub.test/bad/broken:{tag}", {"refused", "failed"})
        assert document["reason"], tag
        assert document["path"] is None, tag
        state = debark.client().manifest("hub.test/bad/broken", tag).headers["X-CVMFS-State"]
        assert state == document["state"]
    for repository in debark.repositories():
        assert problems(debark, repository["fqrn"]) == []


def test_a_member_that_leaves_the_root_is_refused_by_name(hub: Hub, debark: DebarkProcess, skopeo: Skopeo) -> None:
    broken()["leaves-root"].push(hub.client(), "bad/escape", "1")
    skopeo.pull(f"{debark.address}/hub.test/bad/escape:1", "escape")
    document = debark.wait_for("hub.test/bad/escape:1", {"refused"})
    assert "escaped" in document["reason"]
    assert not (debark.data.parent / "escaped").exists()


def test_an_unknown_upstream_is_not_found_and_the_allowed_are_named(debark: DebarkProcess) -> None:
    answer = debark.client().manifest("elsewhere.example.org/team/app", "1")
    assert answer.status == 404
    message = answer.json()["errors"][0]["message"]
    assert "elsewhere.example.org" in message
    assert "hub.test" in message


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("hub.test/Upper/case/manifests/1", "NAME_INVALID"),
        ("hub.test/a..b/manifests/1", "NAME_INVALID"),
        ("hub.test/app/manifests/-tag", "MANIFEST_INVALID"),
        ("hub.test/app/manifests/sha256:short", "DIGEST_INVALID"),
        ("hub.test/app/blobs/sha256:" + "G" * 64, "DIGEST_INVALID"),
    ],
)
def test_what_breaks_the_grammar_is_a_bad_request(debark: DebarkProcess, path: str, code: str) -> None:
    answer = debark.get(f"/v2/{path}")
    assert answer.status == 400
    assert answer.json()["errors"][0]["code"] == code


def test_what_the_hub_does_not_have_is_not_found(debark: DebarkProcess) -> None:
    answer = debark.client().manifest("hub.test/bad/nothing", "1")
    assert answer.status == 404
    assert answer.json()["errors"][0]["code"] in {"MANIFEST_UNKNOWN", "NAME_UNKNOWN"}


def test_a_blob_is_served_only_under_a_repository_that_names_it(hub: Hub, debark: DebarkProcess, skopeo: Skopeo) -> None:
    image = tiny("of one repository")
    image.push(hub.client(), "bad/owner", "1")
    copy = skopeo.pull(f"{debark.address}/hub.test/bad/owner:1", "owner")
    digest = next(iter(copy.blobs))
    assert debark.client().blob("hub.test/bad/owner", digest).status == 200
    assert debark.client().blob("hub.test/bad/stranger", digest).status == 404


def test_what_needs_a_credential_is_never_published(tmp_path: Path, skopeo: Skopeo) -> None:
    password = tmp_path / "password"
    password.write_text(READER.password)
    password.chmod(0o600)
    with Hub(tmp_path / "hub", private=True) as private:
        tiny("secret").push(private.client(), "team/app", "1")
        settings = f"""
            [upstreams."private.test"]
            url = "{private.url}"
            username = "{READER.user}"
            password_file = "{password}"
            private = "serve"
        """
        with DebarkProcess(tmp_path / "debark", {"anonymous.test": private.url}, settings) as debark:
            with pytest.raises(ToolFailed):
                skopeo.pull(f"{debark.address}/anonymous.test/team/app:1", "anonymous")
            skopeo.pull(f"{debark.address}/private.test/team/app:1", "private")
            document = debark.wait_for("private.test/team/app:1", {"refused", "failed"})
            assert document["path"] is None
            assert document["reason"]
