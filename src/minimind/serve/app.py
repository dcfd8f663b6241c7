"""Routes, page and guard as one application, and the process that serves it.

The page's files are open without a key, for a browser cannot show one when it opens a page. All else but `/health` is
closed.
"""

import asyncio
import gc
import logging
import socket
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
from starlette.routing import Route
from starlette.types import ASGIApp

from minimind.serve.api import Service, make_router
from minimind.serve.connection import KEEP_ALIVE_SECONDS, MAX_HEADER_BYTES, Connection
from minimind.serve.guard import SERVER_ERROR, Guard, Policy
from minimind.serve.manners import Manners
from minimind.serve.page import make_page_router, page_files
from minimind.serve.problems import Problem, problem_reply, validation_problem
from minimind.terminal.notes import note

__all__ = ["build_app", "make_server", "run_server"]

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
    router = make_router(service)
    app.state.paths = ", ".join(sorted({route.path for route in router.routes if isinstance(route, Route)}))
    app.include_router(router)
    files = page_files()
    tokenizers = {name: engine.tokenizer for name, engine in service.runner.engines.items()}
    app.include_router(make_page_router(files, tokenizers, runs))
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_error)
    policy = policy or Policy()
    return Manners(Guard(app, replace(policy, open={*policy.open, *files})), policy.origins)


def run_server(app: ASGIApp, host: str, port: int) -> None:
    """Serve until SIGTERM or Ctrl-C; answers under way then have DRAIN_SECONDS to end."""
    # What is loaded by now stays. Looked through again for each body of many lists, it would cost a second of each.
    gc.collect()
    gc.freeze()
    make_server(app, host, port).run()


class _Server(uvicorn.Server):
    """uvicorn's server, which says what it waits for at its end, and not a word of answers that are cut then."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if count := len(self.server_state.tasks):
            answers = "1 answer" if count == 1 else f"{count} answers"
            note(f"finishing {answers}; Ctrl-C again ends them")
        log = logging.getLogger("uvicorn.error")
        log.addFilter(_is_no_cancellation)
        await super().shutdown(sockets)
        # What still runs is cancelled now, and starlette would send the traceback of that as a message.
        log.disabled = self.force_exit


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


def make_server(app: ASGIApp, host: str, port: int) -> uvicorn.Server:
    return _Server(
        uvicorn.Config(
            cast(Any, app),
            host=host,
            port=port,
            # The one of uvicorn's parsers that bounds headers.
            http=Connection,
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


async def _on_problem(request: HttpRequest, error: Exception) -> Response:
    return problem_reply(cast(Problem, error))


async def _on_invalid(request: HttpRequest, error: Exception) -> Response:
    return problem_reply(validation_problem(cast(RequestValidationError, error).errors()))


async def _on_http(request: HttpRequest, error: Exception) -> Response:
    status = cast(HTTPException, error).status_code
    words = {
        404: f"there is no such path; there are {request.app.state.paths}",
        405: "this path does not take this method",
    }
    return problem_reply(Problem(status, words.get(status, "the request cannot be read")))


async def _on_error(request: HttpRequest, error: Exception) -> Response:
    """The guard, where the error goes next, writes it to the log."""
    return problem_reply(SERVER_ERROR)
