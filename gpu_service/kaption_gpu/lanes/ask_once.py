"""What ends a transaction is asked of the broker once: an answer that does not come leaves its end unclear.

aiokafka sends such a request again without a word when the connection breaks. The first one, which the network held back, then
commits the next transaction in its middle, since nothing tells the two apart (KAFKA-17754; HAZARDS, aiokafka 12). Here the producer is in error
instead; the lane begins again with a new one, whose epoch refuses what is late. What was never sent is tried again.
"""

import asyncio
from typing import Any

from aiokafka.errors import KafkaError, NodeNotReadyError
from aiokafka.producer import sender


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


def end_transactions_once() -> None:
    """Let every transactional producer of this process do so; a second call changes nothing."""
    sender.EndTxnHandler = _EndOnce
    sender.TxnOffsetCommitHandler = _OffsetsOnce
