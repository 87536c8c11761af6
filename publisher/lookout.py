"""What the publisher keeps an eye on beside its images: the policy's file, the disks, the audit log; and who is told of it."""

from __future__ import annotations

import asyncio

import structlog

from mirror.errors import Unavailable
from mirror.jobs.conditions import Condition, Conditions
from mirror.jobs.waiting import WaitingReasons
from publisher.audit import Act, AuditLog
from publisher.disk import DiskGate
from publisher.policy_file import PolicyFile

log = structlog.get_logger()


class Lookout:
    """Looks once a second, and says in the state database what is wrong, until it is right."""

    def __init__(
        self,
        policy: PolicyFile,
        disk: DiskGate,
        audit: AuditLog,
        *,
        publisher: str,
        conditions: Conditions,
        waiting: WaitingReasons,
        interval: float = 1.0,
    ) -> None:
        """publisher: its name, used by no other that lives. interval: seconds between two looks."""
        self._publisher = publisher
        self.policy = policy
        self.disk = disk
        self.audit = audit
        self._conditions = conditions
        self._waiting = waiting
        self._interval = interval
        self._told: dict[Condition, str] | None = None

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(self._interval)

    async def look(self) -> None:
        """Look once. A database that is away is told the next time."""
        changed = await asyncio.to_thread(self._look)
        try:
            if changed:
                await asyncio.to_thread(self.audit.record, Act.POLICY, sha256=self.policy.digest)
            await self._tell()
        except Unavailable as error:
            log.debug("conditions_not_told", reason=str(error))

    def _look(self) -> bool:
        self.disk.look()
        return self.policy.look()

    async def _tell(self) -> None:
        found = {
            Condition.DISK: self.disk.reason,
            Condition.POLICY: self.policy.problem,
            Condition.AUDIT: self.audit.problem,
        }
        wrong = {name: text for name, text in found.items() if text is not None}
        if wrong != self._told:
            await self._conditions.replace(self._publisher, wrong)
        if self.disk.reason is not None:
            await self._waiting.explain(self.disk.reason)
        elif self._told is None or Condition.DISK in self._told:
            await self._waiting.clear()
        self._told = wrong
