"""Finds dead members of a consumer group on this machine by their client id, and removes them from the group.

A broker notices a killed member by its session timeout. The embedded broker never does: noida-db 0.2.3 keeps a dead member
without end, and every later join waits for it. So another process on the machine removes it. Members on other machines, or
in other pid namespaces, are left to the broker.
"""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.protocol.group import LeaveGroupRequest

from kaption.adapters.kafka.clients import security
from kaption.adapters.settings import Settings

log = logging.getLogger(__name__)


def client_id(role: str) -> str:
    """Make a client id that names a member's machine and process: ``kaption-<role>@<host>@<boot>@<namespace>@<pid>``."""
    return f"kaption-{role}@{_place()}@{os.getpid()}"


def is_dead(client: str) -> bool:
    """Whether ``client`` is the id of a process on this machine that has ended or is stopped.

    A stopped process cannot take part either; it joins again when it continues.
    """
    name, _, pid = client.rpartition("@")
    if not name.startswith("kaption-") or name.partition("@")[2] != _place() or not pid.isdigit():
        return False
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    # The field after the command's name, which is in brackets and may contain anything.
    return stat.rpartition(")")[2].split()[0] in ("Z", "X", "T")


async def remove_dead(settings: Settings, group: str) -> None:
    """Remove dead members on this machine from ``group``. Raises ``KafkaError``."""
    async with _admin(settings) as admin:
        await _remove(admin, group)


async def keep_removing(settings: Settings, group: str) -> None:
    """Remove dead members without end, twice per session timeout: sooner than the broker would."""
    every = settings.session_timeout_ms / 2000
    while True:
        try:
            async with _admin(settings) as admin:
                while True:
                    await _remove(admin, group)
                    await asyncio.sleep(every)
        except KafkaError as error:
            log.info("group_members_unknown", extra={"cause": type(error).__name__})
        await asyncio.sleep(every)


@asynccontextmanager
async def _admin(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(**(security(settings) | {"client_id": client_id("admin")}))
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def _remove(admin: AIOKafkaAdminClient, group: str) -> None:
    dead = [member for member, client in await _members(admin, group) if is_dead(client)]
    for member in dead:
        coordinator = await admin.find_coordinator(group)
        await admin._client.send(coordinator, LeaveGroupRequest(group, member))  # no public call
    if dead:
        log.warning("dead_members_removed", extra={"members": len(dead)})


async def _members(admin: AIOKafkaAdminClient, group: str) -> list[tuple[str, str]]:
    """Return (member id, client id) of each member; none if the group is unknown."""
    try:
        responses = await admin.describe_consumer_groups([group])
    except KafkaError:
        return []
    return [
        (member[0], member[1])
        for response in responses
        for described in response.groups
        for member in described[5]
        if described[0] == 0
    ]


def _place() -> str:
    """Name this machine by host, boot and pid namespace: all machines have the same first namespace, and hosts may share a name."""
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink()).strip("pid:[]")
    except OSError:
        namespace = "0"
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    except OSError:
        boot = "0"
    return f"{socket.gethostname()}@{boot}@{namespace}"
