"""uvicorn's connection with the time limits that it lacks: slow senders and slow readers are dropped.

Whoever has not sent a request's head in time is dropped, and so is whoever takes nothing of an answer. And a connection
is always read, so that its end is seen while an answer is under way: uvicorn stops reading when the next request comes
early, and would then compute on for somebody who has left. `guard.py` watches over bodies.
"""

import asyncio
from typing import Any

from h11 import IDLE, SEND_RESPONSE
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["KEEP_ALIVE_SECONDS", "MAX_HEADER_BYTES", "Connection"]

MAX_HEADER_BYTES = 16 * 1024
HEADER_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 15
# Who takes less than this of what waits for it in so long is gone, or means no good.
TAKING_SECONDS = 60.0
LEAST_TAKEN_BYTES = 32 * 1024


class Connection(H11Protocol):
    """uvicorn's connection, bounded in time."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._headers_due = self.loop.call_later(HEADER_SECONDS, self._drop_silent)
        self._taking_due: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        # h11 bounds what is not complete yet; a head that comes in one piece would be read whatever its size.
        for start in range(0, len(data), MAX_HEADER_BYTES):
            if not self.transport.is_closing():
                super().data_received(data[start : start + MAX_HEADER_BYTES])
        if not self._is_serving:
            return
        self._headers_due.cancel()
        if not self.cycle.more_body:
            early, _ = self.conn.trailing_data
            if len(early) > MAX_HEADER_BYTES:
                self.transport.abort()
            else:
                self.flow.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._headers_due.cancel()
        self._stop_watching()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._expect_request()

    def send_400_response(self, msg: str) -> None:
        # An answer that has begun leaves no room for another.
        if self.conn.our_state in (IDLE, SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_watching()
        if not self._is_serving:
            # Its last bytes have as long as a next request.
            self._expect_request()

    @property
    def _is_serving(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _expect_request(self) -> None:
        """The next one on the same connection; a quiet connection is closed by its keep-alive time."""
        self._headers_due.cancel()
        self._headers_due = self.loop.call_later(KEEP_ALIVE_SECONDS + HEADER_SECONDS, self._drop_silent)

    def _drop_silent(self) -> None:
        if self._is_serving:
            return
        if self.flow.write_paused:
            # It is still taking a long answer.
            self._expect_request()
        else:
            # Closed in good order it would wait for a reader of its last bytes.
            self.transport.abort()

    def _watch(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._taking_due = self.loop.call_later(TAKING_SECONDS, self._drop_stuck, left)

    def _stop_watching(self) -> None:
        if self._taking_due is not None:
            self._taking_due.cancel()

    def _drop_stuck(self, left: int) -> None:
        if left - self.transport.get_write_buffer_size() < LEAST_TAKEN_BYTES:
            self.transport.abort()
        else:
            self._watch()
