"""`debark-publisher import`: continue a repository that cvmfs_server made."""

from __future__ import annotations

from pathlib import Path

import click

from mirror.errors import InvalidInput
from publisher.audit import Act
from publisher.commands.report import Report
from publisher.commands.verb import verb
from publisher.commands.warnings import warn_of_absent_master
from publisher.commands.workplace import USUAL_KEYS, Workplace
from publisher.cvmfs.hash import ContentHash
from publisher.takeover import Origin, take_over

_directory = click.Path(path_type=Path, file_okay=False)


@verb("import")
@click.option("--storage", type=_directory, help="Directory with .cvmfspublished; /srv/cvmfs/FQRN without it.")
@click.option("--keys", type=_directory, default=USUAL_KEYS, show_default=True, help="Directory with FQRN.key, .crt and .pub.")
@click.option("--spool", type=_directory, help="Directory with reflog.chksum; /var/spool/cvmfs/FQRN without it.")
@click.option("--reflog-checksum", metavar="HASH", help="Checksum of the reference log, where there is no such file.")
@click.option("--copy", is_flag=True, help="Leave the original as it is, and continue a copy: hard links where possible.")
@click.option(
    "--compressor", default="zlib-6", show_default=True, help="Of content to come; zlib-6 shares objects with what is there."
)
def import_repository(
    place: Workplace,
    report: Report,
    *,
    storage: Path | None,
    keys: Path,
    spool: Path | None,
    reflog_checksum: str | None,
    copy: bool,
    compressor: str,
) -> None:
    """Take over the repository FQRN from cvmfs_server: its storage, keys and reference log.

    The storage stays where it is, and the data directory leads to it, so web servers go on as before. From then on cvmfs_server
    must not write it, until it is handed back (export-keys).
    """
    if place.config.publish.storage_of(place.fqrn):
        raise InvalidInput(f"the settings say that {place.fqrn} is in a bucket; only repositories in directories are taken over")
    origin = Origin(
        storage or Path("/srv/cvmfs") / place.fqrn,
        keys,
        spool or Path("/var/spool/cvmfs") / place.fqrn,
        ContentHash.parse(reflog_checksum) if reflog_checksum is not None else None,
    )
    with report.progress("copying objects") as update:
        repository = take_over(
            place.fqrn,
            origin,
            place.data,
            compressor,
            place.lifetime,
            whiteouts=place.config.publish.whiteouts,
            copy=copy,
            on_copied=lambda done: update(done, None),
        )
    manifest = repository.manifest()
    place.audit.record(Act.IMPORTED, fqrn=place.fqrn, revision=manifest.revision, source=str(origin.storage))
    report.result(
        f"took over {place.fqrn} at revision {manifest.revision}",
        fqrn=place.fqrn,
        revision=manifest.revision,
        root=str(manifest.root),
        storage=place.where,
    )
    warn_of_absent_master(repository, report)
