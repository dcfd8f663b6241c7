"""torch.compile where it pays: measured on the first batches, weighed against what it costs."""

import math
import time
from collections.abc import Callable

from minimind.errors import ConfigError
from minimind.model import Transformer

__all__ = ["compile_as_chosen", "compile_blocks", "compile_if_faster"]

# Compiling costs up to half a minute; a run shorter than this cannot win it back.
SHORTEST_RUN_SECONDS = 900
WORTHWHILE = 1.05


def compile_blocks(model: Transformer) -> None:
    """Compile each block by itself, in place: names of parameters stay, and equal blocks share the compiled code."""
    for block in model.layers:
        block.compile()


def compile_as_chosen(choice: str, model: Transformer, run_once: Callable[[], None], steps: int) -> bool:
    """Compile the blocks where `choice` is "on", or is "auto" and it pays; tells whether they were.

    Errors: ConfigError where it is "on" and torch cannot compile here
    """
    if choice == "auto":
        return compile_if_faster(model, run_once, steps)
    if choice == "on":
        compile_blocks(model)
        try:
            run_once()
        except RuntimeError as error:
            # Those of the compiler live in modules of their own; running out of memory is not one of them.
            if not type(error).__module__.startswith("torch._"):
                raise
            reason = str(error).strip().partition("\n")[0]
            raise ConfigError(
                f"train.compile is on, and torch cannot compile here: {reason}; install a C++ compiler such as g++, "
                "or leave it at auto"
            ) from error
    return choice == "on"


def compile_if_faster(model: Transformer, run_once: Callable[[], None], steps: int) -> bool:
    """Compile the blocks if a run of `steps` ends sooner that way; tells whether they were.

    run_once: one forward and backward pass over a typical step
    """
    eager = _seconds(run_once)
    if eager * steps < SHORTEST_RUN_SECONDS:
        return False
    start = time.monotonic()
    compile_blocks(model)
    try:
        compiled = _seconds(run_once)
    except RuntimeError:
        # All of torch's compile errors are RuntimeErrors: without a C++ compiler, say, the run goes on as it was.
        compiled = math.inf
    cost = time.monotonic() - start
    if eager > WORTHWHILE * compiled and (eager - compiled) * steps > cost:
        return True
    for block in model.layers:
        block._compiled_call_impl = None
    return False


def _seconds(run_once: Callable[[], None]) -> float:
    run_once()
    start = time.monotonic()
    run_once()
    return time.monotonic() - start
