"""Members of a consumer group that died on this machine: found by their client id, and taken out of the group.

A broker notices a killed member by its session timeout. The embedded broker never does (noida-db 0.2.3 keeps a dead
member for ever, and every later join waits for it), so a process that runs beside the dead one says so. Members of other
machines, or of other pid namespaces, are left to the broker.
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
    """A client id that says which process of which machine a member is: ``kaption-<role>@<host>@<boot>@<namespace>@<pid>``."""
    return f"kaption-{role}@{_place()}@{os.getpid()}"


def is_dead(client: str) -> bool:
    """Whether ``client`` is the id of a process of this machine that has ended or is stopped.

    A stopped one cannot take part either; it joins again when it goes on.
    """
    name, _, pid = client.rpartition("@")
    if not name.startswith("kaption-") or name.partition("@")[2] != _place() or not pid.isdigit():
        return False
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    # The field behind the command's name, which is in brackets and may hold anything.
    return stat.rpartition(")")[2].split()[0] in ("Z", "X", "T")


async def remove_dead(settings: Settings, group: str) -> None:
    """Take dead members of this machine out of ``group``. Raises ``KafkaError``."""
    async with _admin(settings) as admin:
        await _remove(admin, group)


async def keep_removing(settings: Settings, group: str) -> None:
    """Do so for ever, twice in each session timeout: sooner than the broker would."""
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
    """(member id, client id) of each member; none where the group is not known."""
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
    """This machine, as it is since it was started, and pid namespace: in their first one all machines have the same, and names may be equal."""
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink()).strip("pid:[]")
    except OSError:
        namespace = "0"
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    except OSError:
        boot = "0"
    return f"{socket.gethostname()}@{boot}@{namespace}"
