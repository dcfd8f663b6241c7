"""The page: its files, and the routes for what OpenAI's API has no word for: tools, text as tokens, the folder of runs.

All its routes read, but the one that runs a tool: one of `tools.TOOLS`, which can only compute and look up, and never
code. The page asks its reader before each call.
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from minimind.errors import TokenizerError
from minimind.serve.problems import Problem
from minimind.serve.runs_folder import RunsFolder
from minimind.text.tokenizer import Tokenizer
from minimind.tools.builtin import TOOLS, run_tool

__all__ = ["make_page_router", "page_files"]

WEB = Path(__file__).parent / "web"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
MAX_TEXT = 20_000
MAX_TOKENS = 4000
MAX_TOKENIZER_BYTES = 32 * 2**20
_Name = Annotated[str, Field(min_length=1, max_length=1024)]


class _ToolBody(BaseModel):
    """POST /page/tool"""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=64)]
    arguments: Annotated[dict[str, Any], Field(max_length=16)]


class _TokenizeBody(BaseModel):
    """POST /page/tokenize"""

    model_config = ConfigDict(extra="forbid")

    tokenizer: _Name
    text: Annotated[str, Field(max_length=MAX_TEXT)]


def page_files(web: Path = WEB) -> dict[str, Response]:
    """The page's files by their addresses. They are read once, so no request ever names a file."""
    found = {
        f"/{path.name}": Response(
            path.read_bytes(), media_type=TYPES[path.suffix], headers={"Cache-Control": "no-cache"}
        )
        for path in sorted(web.iterdir())
        if path.suffix in TYPES and path.is_file() and not path.is_symlink()
    }
    return {"/": found["/index.html"], **found}


def make_page_router(
    files: Mapping[str, Response], tokenizers: Mapping[str, Tokenizer], runs: Path | None = None
) -> APIRouter:
    """files: as `page_files` gives them; tokenizers: by the names of their models; runs: the folder to show"""
    router = APIRouter()
    folder = RunsFolder(runs)

    for address, reply in files.items():
        router.add_api_route(address, lambda reply=reply: reply, methods=["GET", "HEAD"], response_model=None)

    # No route here is a coroutine, so each runs in a thread and no stream waits for it.
    @router.get("/page/tools")
    def list_tools() -> dict[str, Any]:
        return {"tools": [tool.schema for tool in TOOLS.values()]}

    @router.post("/page/tool")
    def call_tool(body: _ToolBody) -> dict[str, str]:
        if body.name not in TOOLS:
            raise Problem(404, "this server has no such tool", param="name", code="tool_not_found")
        # A message of an error may quote a lone surrogate of the arguments, which no reply can hold.
        return {"content": run_tool(body.name, body.arguments).encode("utf-8", "replace").decode()}

    @router.get("/page/tokenizers")
    def list_tokenizers() -> dict[str, list[str]]:
        return {"models": list(tokenizers), "runs": list(folder.tokenizers())}

    @router.post("/page/tokenize")
    def tokenize(body: _TokenizeBody) -> dict[str, Any]:
        kind, _, name = body.tokenizer.partition(":")
        tokenizer = tokenizers.get(name) if kind == "model" else _of_run(folder, name) if kind == "run" else None
        if tokenizer is None:
            raise Problem(404, "there is no such tokenizer", param="tokenizer", code="tokenizer_not_found")
        return _tokens(body.text, tokenizer)

    @router.get("/page/runs")
    def list_runs() -> dict[str, Any]:
        return {"shown": runs is not None, "runs": folder.runs()}

    @router.get("/page/rows")
    def rows(
        run: Annotated[str, Query(min_length=1, max_length=1024)],
        kind: Literal["metrics", "samples"],
        start: Annotated[int, Query(ge=0, lt=2**53)] = 0,
        file: Annotated[str, Query(max_length=32)] = "",
    ) -> dict[str, Any]:
        if folder.find(f"{run}/recipe.toml") is None:
            raise Problem(404, "there is no such run", param="run", code="run_not_found")
        try:
            return folder.rows(run, kind, start, file)
        except OSError:
            raise Problem(400, "a file of this run cannot be read", param="run", code="run_damaged") from None

    return router


def _of_run(folder: RunsFolder, name: str) -> Tokenizer | None:
    """Errors: Problem"""
    found = folder.tokenizers().get(name)
    if found is None:
        return None
    try:
        state = (found / "tokenizer.json").stat()
        if state.st_size > MAX_TOKENIZER_BYTES:
            raise TokenizerError("its file is too large")
        return _loaded(found, state.st_mtime_ns)
    except (TokenizerError, OSError):
        raise Problem(400, "this tokenizer cannot be read", param="tokenizer", code="tokenizer_damaged") from None


@lru_cache(maxsize=8)
def _loaded(folder: Path, changed: int) -> Tokenizer:
    return Tokenizer.load(folder)


def _tokens(text: str, tokenizer: Tokenizer) -> dict[str, Any]:
    """[id, text, bytes] of each; the text is None where a token is a part of a character. Errors: Problem"""
    try:
        ids = tokenizer.encode(text)
    except TokenizerError as error:
        raise Problem(400, str(error), param="text", code="invalid_value") from None
    return {
        "vocabulary": tokenizer.vocab_size,
        "fingerprint": tokenizer.fingerprint,
        "count": len(ids),
        "tokens": [_token(index, tokenizer) for index in ids[:MAX_TOKENS]],
    }


def _token(index: int, tokenizer: Tokenizer) -> tuple[int, str | None, list[int]]:
    data = tokenizer.decode_bytes([index])
    try:
        return index, data.decode(), list(data)
    except UnicodeDecodeError:
        return index, None, list(data)
