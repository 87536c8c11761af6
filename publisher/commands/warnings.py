"""What an operator must not overlook."""

from __future__ import annotations

from publisher.commands.report import Report
from publisher.repository import Repository


def warn_of_absent_master(repository: Repository, report: Report) -> None:
    """Say until when the whitelist holds, if it cannot be renewed on this machine."""
    if repository.keys.master is None:
        ends = repository.whitelist().expires
        report.warn(
            f"the master key of {repository.fqrn} is not on this machine, so nothing here renews its whitelist. Clients refuse "
            f"the repository from {ends:%Y-%m-%d %H:00} UTC on, unless somebody signs a new one before where the master key is: "
            f"debark-publisher resign --keys DIR --output FILE {repository.fqrn}; and here: "
            f"debark-publisher resign --whitelist FILE {repository.fqrn}"
        )
