"""The verbs of the command line. Verb `pretrain` is the module `stages/pretrain.py`: a `PretrainConfig` and a `run`.

Stages are where the parts meet: they open files, build a model, a source and an objective, and hand them on. Nothing
is imported until its verb is called. A new verb is a new module and a row in this table.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minimind.config import Config

__all__ = ["VERBS", "Verb", "load_stage"]


@dataclass(frozen=True)
class Verb:
    """What a verb does in a line, and commands to copy."""

    summary: str
    examples: tuple[str, ...]


VERBS = {
    "tokenizer": Verb(
        "learn a vocabulary from text",
        (
            "minimind tokenizer recipes/quickstart/1-tokenizer.toml",
            "minimind tokenizer --source texts/ --out runs/mine/tokenizer --vocab_size 6400",
        ),
    ),
    "prepare": Verb(
        "clean, deduplicate and split text or conversations, and store them as token ids",
        (
            "minimind prepare recipes/quickstart/2-prepare-texts.toml",
            "minimind prepare --source texts/ --tokenizer runs/mine/tokenizer --out data/mine",
        ),
    ),
    "pretrain": Verb(
        "train a new model to predict the next token of prepared text",
        (
            "minimind pretrain recipes/quickstart/3-pretrain.toml",
            "minimind pretrain --data.source data/mine --tokenizer runs/mine/tokenizer --run runs/mine/pretrain",
        ),
    ),
    "sft": Verb(
        "teach a pretrained model to answer, from conversations",
        (
            "minimind sft recipes/quickstart/5-sft.toml",
            "minimind sft --data.source chats.jsonl --model runs/mine/pretrain --run runs/mine/sft",
        ),
    ),
    "evaluate": Verb(
        "measure a model on held-out text and tasks",
        (
            "minimind evaluate runs/quickstart/sft --questions builtin://questions",
            "minimind evaluate runs/mine/pretrain --text data/mine",
        ),
    ),
    "generate": Verb(
        "continue a text, or answer prompts from a file",
        (
            "minimind generate runs/quickstart/pretrain --prompt 'The sun' '今天'",
            "minimind generate runs/mine/sft --chat --file questions.txt --out answers.jsonl",
        ),
    ),
    "chat": Verb(
        "talk with a model in the terminal",
        (
            "minimind chat runs/quickstart/sft",
            "minimind chat runs/mine/sft --thinking --sampling.temperature 0.3",
        ),
    ),
    "report": Verb(
        "write one HTML page with the curves, tables and samples of runs",
        (
            "minimind report runs/quickstart",
            "minimind report runs/first runs/second --out compare.html",
        ),
    ),
    "run": Verb(
        "run a folder of recipes in order",
        (
            "minimind run recipes/quickstart",
            "minimind run recipes/quickstart --from evaluate",
        ),
    ),
}


def load_stage(verb: str) -> "tuple[type[Config], Callable[[Any], None]]":
    """The config class and the `run` of a verb; this imports its module."""
    module = importlib.import_module(f"minimind.stages.{verb}")
    return getattr(module, f"{verb.capitalize()}Config"), module.run
