"""Text from a model: one token after another, for one prompt or many at once, whole or as it comes.

Ids go in and ids come out (`generate_ids`); the text layer on top (`complete`, `stream`, `generate`) decodes them.
Three promises hold, up to rounding: the answer is the same with the cache or without, alone or in a batch, streamed or
whole. Each row draws its random numbers from (seed, stream number), so a batch cannot change what a row says.
`sampling.py` draws the next id from logits; read `model.py` for where those come from.
"""

import math
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal, overload

import torch
from torch import Tensor

from minimind.errors import UserError
from minimind.generation.cache import KeyValueCache
from minimind.generation.packed_weights import packed
from minimind.generation.sampling import Sampling, draw, penalise
from minimind.model import Transformer
from minimind.text.tokenizer import StreamDecoder, Tokenizer

__all__ = ["Completion", "TextStream", "complete", "generate", "generate_ids", "stream"]


@dataclass(frozen=True)
class Completion:
    """What followed a prompt.

    ids:            every id that was drawn, a final stop id included: token-in, token-out training needs it
    logprobs:       of each id, natural log, under the distribution it was drawn from (temperature, top-p, ... applied);
                    0 when greedy
    raw_logprobs:   of each id under the model's own distribution: temperature 1, nothing left out, no penalty
    finish_reason:  "stop" for a stop id, a stop string or the caller; "length" for max_tokens or the end of the context
    text:           without stop id and stop string; empty from `generate_ids`, which knows no text
    """

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    raw_logprobs: list[float] = field(default_factory=list)
    finish_reason: Literal["stop", "length"] = "length"
    text: str = ""


@overload
def generate(model: Transformer, tokenizer: Tokenizer, prompt: str, **settings: object) -> str: ...
@overload
def generate(model: Transformer, tokenizer: Tokenizer, prompt: Sequence[str], **settings: object) -> list[str]: ...
def generate(model, tokenizer, prompt, **settings):
    """Continue a text, or each of several: `generate(model, tokenizer, "The sun", max_tokens=20, temperature=0)`.

    settings:  the fields of `Sampling`
    Errors:    UserError for a prompt that does not fit the context, ConfigError for a setting out of bounds.
    """
    texts = [prompt] if isinstance(prompt, str) else prompt
    prompts = [tokenizer.begin(ids) for ids in tokenizer.encode_batch(texts)]
    found = [completion.text for completion in complete(model, tokenizer, prompts, Sampling(**settings))]
    return found[0] if isinstance(prompt, str) else found


def complete(
    model: Transformer,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling | None = None,
    *,
    stop_ids: Collection[int] | None = None,
    streams: Sequence[int] | None = None,
    on_text: Callable[[int, str], None] | None = None,
    batch_size: int = 32,
) -> list[Completion]:
    """Continue prompts of ids, with stop strings and text. Errors: as `generate`.

    stop_ids:    ids that end a row; the tokenizer's EOS and PAD (`<|endoftext|>`) unless given
    streams:     the number of each row's random stream; 0, 1, ... unless given
    on_text:     called with the row and each new piece of its text
    batch_size:  rows computed at once
    """
    sampling = sampling or Sampling()
    stop_ids = tokenizer.end_ids if stop_ids is None else stop_ids
    streams = range(len(prompts)) if streams is None else streams
    texts = [TextStream(tokenizer, sampling.stop) for _ in prompts]

    def tell(row: int, piece: str) -> None:
        if piece and on_text is not None:
            on_text(row, piece)

    def on_token(row: int, token: int) -> bool:
        if token not in stop_ids:
            tell(row, texts[row].push(token))
        return texts[row].is_stopped

    completions = []
    for start in range(0, len(prompts), batch_size):
        part = slice(start, start + batch_size)
        completions += generate_ids(
            model,
            prompts[part],
            sampling,
            stop_ids=stop_ids,
            streams=streams[part],
            # The offset is bound now: the closure would otherwise see a later one.
            on_token=lambda row, token, start=start: on_token(start + row, token),
            num_ids=tokenizer.vocab_size,
        )
        for row in range(start, len(completions)):
            tell(row, texts[row].finish())
    return [replace(c, text=text.text) for c, text in zip(completions, texts, strict=True)]


def stream(
    model: Transformer, tokenizer: Tokenizer, prompt: str | Sequence[int], sampling: Sampling | None = None
) -> Iterator[str]:
    """The text that follows, in pieces as it comes; none ends inside a character or holds part of a stop string.

    prompt:  text to continue, or ids such as `conversation.render_prompt` gives
    Errors:  as `generate`, at once and not at the first piece.
    """
    sampling = sampling or Sampling()
    ids = tokenizer.begin(tokenizer.encode(prompt)) if isinstance(prompt, str) else prompt
    stop_ids = tokenizer.end_ids
    context = model.config.max_position_embeddings
    _require_fit(model, [ids], context)

    def pieces() -> Iterator[str]:
        text = TextStream(tokenizer, sampling.stop)
        with _evaluating(model):
            rows = _Rows(model, [ids], sampling, stop_ids, [0], tokenizer.vocab_size, context)
            while rows.alive:
                [(_, token)] = rows.draw()
                if token not in stop_ids and (piece := text.push(token)):
                    yield piece
                rows.feed({0} if text.is_stopped else set())
        if rest := text.finish():
            yield rest

    return pieces()


def generate_ids(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling | None = None,
    *,
    stop_ids: Collection[int] = (),
    on_token: Callable[[int, int], bool | None] | None = None,
    streams: Sequence[int] | None = None,
    num_ids: int | None = None,
    context: int | None = None,
) -> list[Completion]:
    """Continue each prompt, all in one batch that shrinks as rows finish; no text is involved.

    on_token:  called with the row and each id as it is drawn, a stop id too; true ends the row with "stop"
    num_ids:   draw among the first so many ids; a model may have more rows than its tokenizer has ids
    context:   ids of a prompt and what follows, if fewer than the model takes
    Errors:    UserError for a prompt that is empty, does not fit the context or has an unknown id.
    """
    limit = min(context or model.config.max_position_embeddings, model.config.max_position_embeddings)
    _require_fit(model, prompts, limit)
    if not prompts:
        return []
    streams = range(len(prompts)) if streams is None else streams
    with _evaluating(model):
        rows = _Rows(model, prompts, sampling or Sampling(), stop_ids, streams, num_ids, limit)
        while rows.alive:
            drawn = rows.draw()
            stopped = {row for row, token in drawn if on_token(row, token)} if on_token is not None else set()
            rows.feed(stopped)
    return rows.completions


class TextStream:
    """Ids in, text out: whole characters only, and nothing of a stop string, however tokens cut it."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self._decoder = StreamDecoder(tokenizer, skip_special=True)
        self._stop = stop
        self._pieces: list[str] = []
        self._held = ""
        self.is_stopped = False

    @property
    def text(self) -> str:
        """All that was given out."""
        return "".join(self._pieces)

    def push(self, token: int) -> str:
        """The text that this id makes certain; often empty."""
        return self._give(self._decoder.push(token))

    def finish(self) -> str:
        """What was held back and did not become a stop string."""
        piece = self._give(self._decoder.finish()) + self._held
        if not self.is_stopped and self._held:
            self._pieces.append(self._held)
        self._held = ""
        return piece

    def _give(self, new: str) -> str:
        if self.is_stopped or not new:
            return ""
        text = self._held + new
        found = [at for stop in self._stop if (at := text.find(stop)) >= 0]
        if found:
            self.is_stopped = True
            piece, self._held = text[: min(found)], ""
        else:
            held = max((_overlap(text, stop) for stop in self._stop), default=0)
            piece, self._held = text[: len(text) - held], text[len(text) - held :]
        self._pieces.append(piece)
        return piece


@contextmanager
def _evaluating(model: Transformer) -> Iterator[None]:
    """Dropout off and weights packed while a text is generated, whatever the mode was."""
    was_training = model.training
    model.eval()
    try:
        with packed(model):
            yield
    finally:
        model.train(was_training)


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` begin `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


def _require_fit(model: Transformer, prompts: Sequence[Sequence[int]], context: int) -> None:
    vocab_size = model.config.vocab_size
    for row, prompt in enumerate(prompts):
        if not prompt:
            raise UserError(f"prompt {row} is empty; expected at least one token, such as BOS")
        if len(prompt) >= context:
            raise UserError(
                f"prompt {row} has {len(prompt):,} tokens and the context {context:,}, of which the answer needs at "
                "least one; shorten the prompt"
            )
        if not 0 <= min(prompt) <= max(prompt) < vocab_size:
            raise UserError(f"prompt {row} has ids outside 0..{vocab_size - 1}; use the model's own tokenizer")


class _Rows:
    """A batch being continued: `draw` an id for each row that is alive, then `feed` those ids to the model."""

    def __init__(
        self,
        model: Transformer,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        stop_ids: Collection[int],
        streams: Sequence[int],
        num_ids: int | None,
        context: int,
    ) -> None:
        self._model = model
        self._sampling = sampling
        self._stop_ids = stop_ids
        self._num_ids = num_ids or model.config.vocab_size
        self._limits = [min(sampling.max_tokens, context - len(prompt)) for prompt in prompts]
        # Mersenne twisters, so that the draws are the same on every device and in every version of torch.
        self._random = [random.Random(f"{sampling.seed} {number}") for number in streams]
        self.completions = [Completion() for _ in prompts]
        self.alive = list(range(len(prompts)))
        self._read(prompts)

    @torch.inference_mode()
    def _read(self, prompts: Sequence[Sequence[int]]) -> None:
        """Fill the cache with the prompts, padded on the right: what is written for padding never counts."""
        weight = self._model.output_weight
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=weight.device)
        tokens = torch.zeros(len(prompts), int(lengths.max()), dtype=torch.int64)
        for row, prompt in enumerate(prompts):
            tokens[row, : len(prompt)] = torch.tensor(prompt)
        tokens = tokens.to(weight.device)
        capacity = max(len(prompt) + limit for prompt, limit in zip(prompts, self._limits, strict=True))
        self._cache = KeyValueCache.allocate(
            self._model.config, len(prompts), capacity, dtype=weight.dtype, device=weight.device
        )
        states = self._model.hidden_states(tokens, cache=self._cache).states
        self._cache.advance(lengths)
        self._set_logits(states[torch.arange(len(prompts), device=weight.device), lengths - 1])
        self._seen: Tensor | None = None
        if self._sampling.repetition_penalty != 1:
            self._seen = torch.zeros(len(prompts), len(weight), dtype=torch.bool, device=weight.device)  # [B, V]
            for row, prompt in enumerate(prompts):
                self._seen[row, torch.tensor(prompt, device=weight.device)] = True

    def _set_logits(self, states: Tensor) -> None:
        self._logits = self._model.logits(states)[:, : self._num_ids]  # [rows, V]

    @torch.inference_mode()
    def draw(self) -> list[tuple[int, int]]:
        """The next (row, id) of each row that is alive."""
        logits = self._logits
        if self._seen is not None:
            # A conversation is full of ends of turns: penalised like other tokens, it could never end again.
            self._seen[:, list(self._stop_ids)] = False
            logits = penalise(logits, self._seen[:, : self._num_ids], self._sampling.repetition_penalty)
        uniforms = [self._random[row].random() for row in self.alive]
        self._ids, logprobs = draw(logits, self._sampling, uniforms)
        raw = self._logits.gather(1, self._ids[:, None])[:, 0] - self._logits.logsumexp(-1)
        ids = self._ids.tolist()
        for row, token, logprob, raw_logprob in zip(self.alive, ids, logprobs.tolist(), raw.tolist(), strict=True):
            if math.isnan(raw_logprob):
                raise UserError(f"the model's scores for row {row} are not numbers; its weights are damaged")
            completion = self.completions[row]
            completion.ids.append(token)
            completion.logprobs.append(logprob)
            completion.raw_logprobs.append(raw_logprob)
        return list(zip(self.alive, ids, strict=True))

    @torch.inference_mode()
    def feed(self, stopped: Collection[int]) -> None:
        """Drop the rows that are finished, or `stopped` by the caller, and compute the next logits of the others."""
        kept = []
        for position, row in enumerate(self.alive):
            completion = self.completions[row]
            if row in stopped or completion.ids[-1] in self._stop_ids:
                self.completions[row] = replace(completion, finish_reason="stop")
            elif len(completion.ids) < self._limits[row]:
                kept.append(position)
        if len(kept) < len(self.alive):
            self._keep(kept)
        if not self.alive:
            return
        if self._seen is not None:
            self._seen.scatter_(1, self._ids[:, None], True)
        states = self._model.hidden_states(self._ids[:, None], cache=self._cache).states
        self._cache.advance(1)
        self._set_logits(states[:, -1])

    def _keep(self, positions: list[int]) -> None:
        self.alive = [self.alive[position] for position in positions]
        if positions:
            index = torch.tensor(positions, device=self._ids.device)
            self._cache = self._cache.select(index)
            self._ids = self._ids[index]
            self._seen = None if self._seen is None else self._seen[index]
