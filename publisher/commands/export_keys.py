"""`debark-publisher export-keys`: what somebody else needs to read a repository, or to go on writing it."""

from __future__ import annotations

import os
from pathlib import Path

import click

from publisher.commands.report import Report
from publisher.commands.verb import verb
from publisher.commands.workplace import Workplace
from publisher.cvmfs.reflog import REFLOG_NAME
from publisher.errors import Conflict
from publisher.keys import KeyFiles

_CHECKSUM = "reflog.chksum"


@verb("export-keys")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, file_okay=False), default=Path(), help="Directory; this one without it."
)
@click.option("--public", is_flag=True, help="The public master key only: what clients and replicas need.")
def export_keys(place: Workplace, report: Report, *, output: Path, public: bool) -> None:
    """Write the keys of the repository FQRN under the names that CernVM-FS uses, and the checksum of its reference log.

    With that and the storage directory, cvmfs_server can take the repository over: the keys go to /etc/cvmfs/keys, the checksum
    to /var/spool/cvmfs/FQRN/reflog.chksum. Stop this publisher for good before. Files that exist are not overwritten.
    """
    repository = place.repository()
    files = KeyFiles(place.data.keys, place.fqrn)
    output.mkdir(mode=0o755 if public else 0o700, parents=True, exist_ok=True)
    with repository.spool.lock(60.0):
        repository.recover()
        contents = {files.public.name: (repository.keys.public_pem, 0o644)}
        if not public:
            private = [files.master, files.signing, files.certificate]
            contents |= {path.name: (path.read_bytes(), 0o600) for path in private if path.exists()}
            checksum = repository.spool.reflog_checksum(repository.store.read_file(REFLOG_NAME))
            contents[_CHECKSUM] = (str(checksum).encode("ascii"), 0o644)
    present = [name for name in contents if (output / name).exists()]
    if present:
        raise Conflict(f"{output} has {', '.join(present)} already; nothing was written")
    for name, (data, mode) in contents.items():
        descriptor = os.open(output / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        report.result(f"wrote {output / name}", fqrn=place.fqrn, file=str(output / name))
