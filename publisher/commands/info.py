"""`debark-publisher info`: what there is to know about a repository."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from publisher.commands.reading import public_key_option, url_option
from publisher.commands.report import Report, size
from publisher.commands.verb import verb
from publisher.commands.warnings import warn_of_absent_master
from publisher.commands.workplace import Workplace
from publisher.cvmfs.whitelist import fingerprint_text


@verb("info")
@url_option
@public_key_option
@click.option("--stored", is_flag=True, help="Also how many objects and bytes the storage holds: a walk over all of it.")
def info(place: Workplace, report: Report, *, url: str | None, public_key: Path | None, stored: bool) -> None:
    """Tell revision, times, signatures and sizes of the repository FQRN."""
    with place.opened(url, public_key) as opened:
        reader = opened.reader
        manifest, root = reader.manifest, reader.snapshot.root
        total = root.statistics.total
        history = reader.history()
        fields: dict[str, object] = {
            "fqrn": place.fqrn,
            "revision": manifest.revision,
            "root": str(manifest.root),
            "published": _time(manifest.timestamp),
            "ttl": manifest.ttl,
            "garbage_collectable": manifest.garbage_collectable,
            "whitelist_expires": _time(reader.whitelist.expires.timestamp()),
            "certificates": [fingerprint_text(known) for known in reader.whitelist.fingerprints],
            "entries": total.entries,
            "files": total.regular,
            "file_size": size(total.file_size) if not report.as_json else total.file_size,
            "catalogs": total.nested + 1,
            "names": sorted(history.tags()) if history is not None else [],
        }
    if url is None and place.exists():
        repository = place.repository()
        fields["compressor"] = repository.settings.compressor
        fields["whiteouts"] = repository.settings.whiteouts
        fields["master_key_here"] = repository.keys.master is not None
        if stored:
            objects = [found.size for found in repository.store.objects()]
            fields["objects"] = len(objects)
            fields["stored"] = sum(objects) if report.as_json else size(sum(objects))
        report.table(**fields)
        warn_of_absent_master(repository, report)
    else:
        report.table(**fields)


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
