"""Routes, page and guard as one application, and the process that serves it.

The page's files are open without a key, for a browser cannot show one when it opens a page. All else but `/health` is
closed.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import uvicorn
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from minimind.serve.api import Service, make_router
from minimind.serve.guard import SERVER_ERROR, Guard, Policy
from minimind.serve.page import make_page_router, page_files
from minimind.serve.problems import Problem, problem_reply, validation_problem

__all__ = ["build_app", "make_server", "run_server"]

MAX_HEADER_BYTES = 16 * 1024
HEADER_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 15
DRAIN_SECONDS = 30
MAX_CONNECTIONS = 1024


def build_app(service: Service, policy: Policy | None = None, *, runs: Path | None = None) -> ASGIApp:
    """The application; it starts and stops the service's runner.

    runs:  the folder of runs that the page shows
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.runner.start()
        yield
        await asyncio.to_thread(service.runner.stop)

    # The pages that FastAPI would offer load scripts from elsewhere.
    app = FastAPI(title="minimind", lifespan=lifespan, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.include_router(make_router(service))
    files = page_files()
    tokenizers = {name: engine.tokenizer for name, engine in service.runner.engines.items()}
    app.include_router(make_page_router(files, tokenizers, runs))
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_error)
    policy = policy or Policy()
    return Guard(app, replace(policy, open={*policy.open, *files}))


def run_server(app: ASGIApp, host: str, port: int) -> None:
    """Serve until SIGTERM or Ctrl-C; answers under way then have DRAIN_SECONDS to end."""
    make_server(app, host, port).run()


def make_server(app: ASGIApp, host: str, port: int) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(
            cast(Any, app),
            host=host,
            port=port,
            # The one of uvicorn's parsers that bounds headers.
            http=_PatientProtocol,
            ws="none",
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            limit_concurrency=MAX_CONNECTIONS,
            backlog=MAX_CONNECTIONS,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=DRAIN_SECONDS,
            server_header=False,
            access_log=False,
            log_level="warning",
        )
    )


class _PatientProtocol(H11Protocol):
    """uvicorn's HTTP, with an end to its patience: who has not sent a request's headers in time is dropped."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._headers_due = self.loop.call_later(HEADER_SECONDS, self._drop_silent)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_serving:
            self._headers_due.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        self._headers_due.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # For the next request on the same connection; a quiet one is closed by its keep-alive time.
        self._headers_due.cancel()
        self._headers_due = self.loop.call_later(KEEP_ALIVE_SECONDS + HEADER_SECONDS, self._drop_silent)

    def _drop_silent(self) -> None:
        if not self._is_serving and not self.transport.is_closing():
            self.transport.close()

    @property
    def _is_serving(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete


async def _on_problem(request: HttpRequest, error: Exception) -> Response:
    return problem_reply(cast(Problem, error))


async def _on_invalid(request: HttpRequest, error: Exception) -> Response:
    return problem_reply(validation_problem(cast(RequestValidationError, error).errors()))


async def _on_http(request: HttpRequest, error: Exception) -> Response:
    status = cast(HTTPException, error).status_code
    words = {404: "there is no such path", 405: "this path does not take this method"}
    return problem_reply(Problem(status, words.get(status, "the request cannot be read")))


async def _on_error(request: HttpRequest, error: Exception) -> Response:
    """The guard, where the error goes next, writes it to the log."""
    return problem_reply(SERVER_ERROR)
