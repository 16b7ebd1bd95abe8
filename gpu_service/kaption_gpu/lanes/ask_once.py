"""What ends a transaction is asked of the broker once: an answer that does not come leaves its end unclear.

aiokafka sends such a request again without a word when the connection breaks. The first one, which the network held back, then
commits the next transaction in its middle, since nothing tells the two apart (KAFKA-17754; HAZARDS, aiokafka 12). Here the producer is in error
instead; the lane begins again with a new one, whose epoch refuses what is late. What was never sent is tried again.
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
    """A handler of aiokafka's sender that sends its request once."""

    _sender: Any
    group: Any

    async def do(self, node: int) -> bool:
        """As the library's own: whether it is done with. An unclear end is the producer's."""
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
    """A producer that asks once for the end of a transaction."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sender._do_txn_commit = MethodType(_commit, self._sender)
        self._sender._do_txn_offset_commit = MethodType(_commit_offsets, self._sender)
