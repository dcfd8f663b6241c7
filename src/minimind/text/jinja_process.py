"""The program of a process that renders chat templates for `jinja_render.py`, a line of JSON in and a line out.

A template is a program by a stranger, and Jinja's sandbox bounds neither time nor memory: `'x' * 10**9` is a single
step. So it runs here, in a process that has most of a second of the processor for each text, half a gigabyte, and may
write no file. What a template meets is what transformers 5.23 offers it, name for name.
Run as a file, apart from the package: a template's process must not hold what the package has loaded.
"""

import json
import re
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import lru_cache
from typing import Any, ClassVar, NoReturn

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

__all__ = ["CPU_SECONDS", "MEMORY_BYTES", "answer", "serve"]

CPU_SECONDS = 0.7
MEMORY_BYTES = 512 * 2**20
# What a text may have beside what was said: the longest real template prints 3,000 characters of its own, and JSON
# spells a character with at most 6.
FREE_CHARACTERS, PER_CHARACTER = 200_000, 8


class _Refused(jinja2.TemplateError):
    """By the template itself, in its own words."""


class _Generation(Extension):
    """`{% generation %}`: what an assistant says. It prints its body."""

    tags: ClassVar[set[str]] = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class _Dict:
    """`dict(...)` without the type's other attributes."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _Namespace(jinja2.utils.Namespace):
    """`namespace(...)` whose names may not begin with an underscore."""

    # The first parameter has no name that could be taken: `namespace(self=1)` is allowed.
    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *rest = args
        names = dict(*rest, **kwargs)
        for name in names:
            _Namespace._check(name)
        jinja2.utils.Namespace.__init__(self, names)

    def __setitem__(self, name: str, value: Any) -> None:
        _Namespace._check(name)
        super().__setitem__(name, value)

    @staticmethod
    def _check(name: Any) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"a namespace cannot hold {name!r}")


def _raise_exception(message: Any) -> NoReturn:
    raise _Refused(message)


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """JSON as it is, where Jinja's own filter spells <, > and & for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


@lru_cache(maxsize=16)
def _compiled(source: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["dict"] = _Dict()
    environment.globals["namespace"] = _Namespace
    # The clock of each text is its own: `_text` puts it beside the other variables.
    return environment.from_string(source)


def _text(source: str, variables: dict[str, Any], now: str | None, limit: int) -> str:
    clock = datetime.fromisoformat(now) if now else datetime.now()
    template = _compiled(source)
    template.globals["strftime_now"] = clock.strftime
    parts, size = [], 0
    for part in template.generate(**variables):
        size += len(part)
        if size > limit:
            raise OverflowError(f"the text is longer than {limit:,} characters")
        parts.append(part)
    return "".join(parts)


def _facts(source: str) -> dict[str, list[str]]:
    """The words that the template looks for in what was said (`'</think>' in content`), and the variables it reads."""
    tree = _compiled(source).environment.parse(source)
    found: list[nodes.Node] = []
    for compare in tree.find_all(nodes.Compare):
        found += [compare.expr, *(operand.expr for operand in compare.ops)]
    for call in tree.find_all((nodes.Call, nodes.Filter, nodes.Test)):
        found += call.args
    words = {node.value for node in found if isinstance(node, nodes.Const) and isinstance(node.value, str)}
    tags = sorted(word for word in words if len(word) > 1 and re.search(r"[^\w\s]", word) and " " not in word)
    return {"words": tags, "variables": sorted(meta.find_undeclared_variables(tree))}


def _guarded(job: Callable[[], Any]) -> dict[str, Any]:
    """What a job gives, or why not: `refused` by the template in its words, `broken` in Python's or Jinja's."""
    # Nobody handles the signal, so that it ends the process even within a single step.
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        return {"value": job()}
    except _Refused as error:
        return {"refused": str(error)}
    except jinja2.TemplateSyntaxError as error:
        return {"broken": f"line {error.lineno}: {error.message}"}
    except RecursionError:
        return {"broken": "it is nested too deeply"}
    except MemoryError:
        return {"broken": f"it needs more than {MEMORY_BYTES >> 20} MB of memory", "is_over": True}
    # Whatever a stranger's program may raise is said, and ends this text alone.
    except Exception as error:
        return {"broken": f"{type(error).__name__}: {error}"}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def answer(request: dict[str, Any]) -> list[dict[str, Any]]:
    """A result for each of `texts`; for none, one with facts about the template."""
    source = request["template"]
    if not request["texts"]:
        return [_guarded(lambda: _facts(source))]
    results = []
    for given in request["texts"]:
        limit = FREE_CHARACTERS + len(source) + PER_CHARACTER * given["size"]
        results.append(
            _guarded(lambda given=given, limit=limit: _text(source, given["variables"], given["now"], limit))
        )
    return results


def serve(lines: Iterator[str]) -> Iterator[str]:
    """Answers to requests; ends where memory ran out, for what is left of it may be in any state."""
    for line in lines:
        results = answer(json.loads(line))
        yield json.dumps(results)
        if any(result.get("is_over") for result in results):
            return


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for reply in serve(iter(sys.stdin.readline, "")):
        sys.stdout.write(reply + "\n")
        sys.stdout.flush()
