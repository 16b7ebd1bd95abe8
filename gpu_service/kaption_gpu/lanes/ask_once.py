"""Sends the requests that end a transaction only once. Without an answer, the transaction's end is unclear.

aiokafka silently sends such a request again when the connection breaks. If the network delayed the first request, that
one may then commit the next transaction in its middle, since the broker cannot distinguish the two (KAFKA-17754; HAZARDS,
aiokafka 12). Here the producer fails instead. The lane begins again with a new producer, and the broker refuses late
requests by the new producer's epoch. A request that was never sent is tried again.
"""

import asyncio
from types import MethodType
from typing import Any
from typing import Final as Const

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, NodeNotReadyError
from aiokafka.producer import sender

from kaption.adapters.kafka.copies import with_names


class _Once:
    """A handler for aiokafka's sender that sends its request once."""

    _sender: Any
    group: Any

    async def do(self, node: int) -> bool:
        """Send the request. Returns whether it is done, like the library's own. An unclear end is a fatal error of the producer."""
        mine: Any = self
        try:
            response = await self._sender.client.send(node, mine.create_request(), group=self.group)
        except NodeNotReadyError:
            await asyncio.sleep(mine.handle_error())
            return False
        except KafkaError as error:
            self._sender._txn_manager.fatal_error(error)
            return True
        backoff = mine.handle_response(response)
        if backoff is None:
            return True
        await asyncio.sleep(backoff)
        return False


class _EndOnce(_Once, sender.EndTxnHandler):  # type: ignore[misc]  # aiokafka ships no types
    pass


class _OffsetsOnce(_Once, sender.TxnOffsetCommitHandler):  # type: ignore[misc]  # aiokafka ships no types
    pass


_commit: Const = with_names(sender.Sender._do_txn_commit, EndTxnHandler=_EndOnce)
_commit_offsets: Const = with_names(sender.Sender._do_txn_offset_commit, TxnOffsetCommitHandler=_OffsetsOnce)


class TransactionalProducer(AIOKafkaProducer):  # type: ignore[misc]  # aiokafka ships no types
    """A producer that sends each request for the end of a transaction once."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sender._do_txn_commit = MethodType(_commit, self._sender)
        self._sender._do_txn_offset_commit = MethodType(_commit_offsets, self._sender)
