"""A run as its recipe describes it, without being started: its model, its rows, and how many steps they make."""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from minimind.config import load
from minimind.data.fitting import fitted
from minimind.data.loader import PackedRows
from minimind.data.shards import open_prepared
from minimind.errors import ConfigError
from minimind.model import Transformer
from minimind.report.plan import Shape, positions_seen
from minimind.stages.pretrain import PretrainConfig
from minimind.stages.sft import SftConfig
from minimind.stages.shared.fresh_model import make_model
from minimind.stages.shared.rows import packed_source, packed_validation
from minimind.stages.shared.samples import answer_samples, continue_samples
from minimind.stages.shared.settled import size_of
from minimind.storage.checkpoint import load_model
from minimind.text.tokenizer import Tokenizer
from minimind.training.budget import MOST_BATCH_TOKENS, DataSize, suited
from minimind.training.distributed import World
from minimind.training.job import Placement, Validation
from minimind.training.settings import TrainConfig
from minimind.training.trained_model import TrainedModel

__all__ = ["PlannedRun", "RandomDocuments", "read_planned_run", "verb_of"]

VERBS = {"pretrain": PretrainConfig, "sft": SftConfig}
# Rows of random ids that are made: the probe comes back to them when it takes more steps.
RANDOM_STEPS = 4


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """What would be trained.

    steps:       all of them
    data_bytes:  of the prepared data; 0 where they are not there yet
    notes:       what had to be assumed
    """

    verb: str
    config: PretrainConfig | SftConfig
    trained: TrainedModel
    shape: Shape
    steps: int
    source: Callable[[Placement], PackedRows]
    validation: Callable[[Placement], Validation] | None
    sample: Callable[[], object]
    data_bytes: int
    notes: list[str]


class RandomDocuments:
    """Documents of random ids, each filling a row: their values change nothing about what a step takes."""

    def __init__(self, count: int, context: int, vocab_size: int) -> None:
        self.lengths = np.full(count, context + 1, dtype=np.int64)
        self._vocab_size = vocab_size

    def __getitem__(self, document: int, /) -> tuple[np.ndarray, np.ndarray]:
        size = int(self.lengths[document])
        ids = np.random.default_rng([0, document]).integers(self._vocab_size, size=size)
        return ids, np.ones(size, dtype=np.float32)


def verb_of(recipe: Path, given: str | None = None) -> str:
    """The stage that a recipe is for: as told, as its name or its run says. Errors: ConfigError"""
    if not recipe.is_file():
        raise ConfigError(f"{recipe}: no such recipe; expected a TOML file of options")
    named = re.fullmatch(r"(?:\d+-)?([a-z]+)(?:-.*)?\.toml", recipe.name)
    environment = recipe.with_name("environment.json")
    stage = json.loads(environment.read_text(encoding="utf-8")).get("stage") if environment.is_file() else None
    verb = given or stage or (named[1] if named else "")
    if verb not in VERBS:
        raise ConfigError(
            f"{recipe}: a recipe for {verb if named else 'an unknown stage'}; plans are made for "
            f"{' and '.join(VERBS)}, say which with --verb"
        )
    return verb


def read_planned_run(
    recipe: Path, verb: str, overrides: Mapping[str, Any] | None = None, *, tokens: int | None = None
) -> PlannedRun:
    """The run of a recipe. Nothing is prepared or written.

    tokens:  of the training data, where they are not prepared yet
    Errors:  ConfigError, DataError, CheckpointError, TokenizerError
    """
    # As in a folder of recipes, where an option names its stage.
    own = {name.removeprefix(f"{verb}."): words for name, words in (overrides or {}).items()}
    config = load(VERBS[verb], recipe, own)
    data = config.data
    trained, is_assumed = _trained(config)
    found = None if tokens or is_assumed else open_prepared(data.source, trained.tokenizer)
    notes = ["the tokenizer is not there yet: the vocabulary's size is the recipe's"] if is_assumed else []
    if found is not None:
        prepared, valid = found
        documents = fitted(prepared, data.context, data.long if isinstance(config, SftConfig) else "split")
        train, line = suited(config.train, size_of(prepared, documents, data.context))
    else:
        size = _assumed_size(config, tokens)
        train, line = suited(config.train, size)
        documents, valid = _random(train, data.context, trained.model.config.vocab_size), None
        notes.append("the data are not prepared yet: every row is one full document, and nothing is held out")
    notes += [line] if line else []
    source = packed_source(documents, data.context, train.batch_tokens)
    rows = source(Placement(World(), torch.float32, train))
    num_rows = len(rows.rows) if found is not None else -(-size.tokens // data.context)
    shape = Shape(
        model=trained.model.config,
        context=data.context,
        tokens=rows.items_per_step * data.context,
        accumulate=train.accumulate,
        seen=positions_seen([piece.size for row in rows.rows for piece in row]),
        learnt=prepared.num_weighted / max(prepared.num_tokens, 1) if found is not None else 1.0,
    )
    folder = Path(data.source[0])
    return PlannedRun(
        verb=verb,
        config=config.model_copy(update={"train": train}),
        trained=trained,
        shape=shape,
        steps=train.steps or math.ceil(-(-num_rows // rows.items_per_step) * (train.epochs or 1)),
        source=source,
        validation=packed_validation(valid, data.context, trained.tokenizer) if valid is not None else None,
        sample=(lambda: None) if is_assumed else _sample(config, trained),
        data_bytes=sum(path.stat().st_size for path in folder.rglob("*.bin")) if found is not None else 0,
        notes=notes,
    )


def _trained(config: PretrainConfig | SftConfig) -> tuple[TrainedModel, bool]:
    """The model and its tokenizer, and whether the tokenizer stands in for one that is not there."""
    base = config.model if isinstance(config, SftConfig) else config.base
    is_assumed = False
    if base is not None:
        model, tokenizer = load_model(base)
    else:
        assert isinstance(config, PretrainConfig)
        is_assumed = config.tokenizer is None or not config.tokenizer.exists()
        # Of a stand-in only that it has fewer ids than the model has rows matters.
        tokenizer = Tokenizer.train([""], 292) if is_assumed else Tokenizer.load(config.tokenizer or Path())
        model = Transformer(config.model) if is_assumed else make_model(config.model, tokenizer, config.train.seed)
    return TrainedModel.begin(model, tokenizer, base=base, lora=config.lora, seed=config.train.seed), is_assumed


def _assumed_size(config: PretrainConfig | SftConfig, tokens: int | None) -> DataSize:
    """Of data that are not there: as told, or as much as the steps take."""
    train, data = config.train, config.data
    if tokens is None and train.steps is None:
        raise ConfigError(
            f"data.source is {', '.join(data.source)}, which is not prepared, and train.steps is not set; "
            "prepare it first, or say with --tokens how many tokens it will have"
        )
    tokens = tokens or (train.steps or 1) * (train.batch_tokens or MOST_BATCH_TOKENS)
    kind = "text" if isinstance(config, PretrainConfig) else "conversation"
    return DataSize(tokens=tokens, learnt=tokens, context=data.context, kind=kind)


def _random(train: TrainConfig, context: int, vocab_size: int) -> RandomDocuments:
    assert train.batch_tokens is not None, "it was settled"
    return RandomDocuments(RANDOM_STEPS * (train.batch_tokens // context) or 1, context, vocab_size)


def _sample(config: PretrainConfig | SftConfig, trained: TrainedModel) -> Callable[[], object]:
    samples = answer_samples if isinstance(config, SftConfig) else continue_samples
    return samples(trained, config.sample_prompts)
