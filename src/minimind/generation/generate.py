"""Text from a model, one token after another: read this to see how it goes.

The model reads the prompt once and keeps its keys and values. Then each new token costs one position: the scores of the
next one, a draw, and the drawn id is what the model reads next. That is all of generation; what a user runs does the
same for many at once (`engine.py`), and tests hold the two to the same words, up to rounding.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import overload

import torch

from minimind.errors import UserError
from minimind.generation.cache import KeyValueCache
from minimind.generation.packed_weights import evaluating
from minimind.generation.request import Request, misfit
from minimind.generation.sampler import Drawn, Sampler, choose
from minimind.generation.sampling import Sampling
from minimind.generation.text_stream import TextStream
from minimind.model import Transformer
from minimind.text.tokenizer import Tokenizer

__all__ = ["draw_ids", "generate", "stream"]


@overload
def generate(model: Transformer, tokenizer: Tokenizer, prompt: str, **settings: object) -> str: ...
@overload
def generate(model: Transformer, tokenizer: Tokenizer, prompt: Sequence[str], **settings: object) -> list[str]: ...
def generate(model, tokenizer, prompt, **settings):
    """Continue a text, or each of several: `generate(model, tokenizer, "The sun", max_tokens=20, temperature=0)`.

    settings:  the fields of `Sampling`
    Errors:    UserError for a prompt that does not fit the context, ConfigError for a setting out of bounds.
    """
    sampling = Sampling(**settings)
    if isinstance(prompt, str):
        return "".join(stream(model, tokenizer, prompt, sampling))
    # All are looked at before the first is continued. Each has random numbers of its own.
    texts = [stream(model, tokenizer, text, sampling, number) for number, text in enumerate(prompt)]
    return ["".join(pieces) for pieces in texts]


def stream(
    model: Transformer,
    tokenizer: Tokenizer,
    prompt: str | Sequence[int],
    sampling: Sampling | None = None,
    number: int = 0,
) -> Iterator[str]:
    """The text that follows, in pieces as it comes; none ends inside a character or holds part of a stop string.

    prompt:  text to continue, or ids such as `conversation.render_prompt` gives
    number:  of its random stream
    Errors:  as `generate`, at once and not at the first piece.
    """
    sampling = sampling or Sampling()
    ids = tokenizer.begin(tokenizer.encode(prompt)) if isinstance(prompt, str) else prompt
    ends, num_ids = tokenizer.end_ids, tokenizer.vocab_size
    drawn = draw_ids(model, ids, sampling, stop_ids=ends, number=number, num_ids=num_ids)

    def pieces() -> Iterator[str]:
        text = TextStream(tokenizer, sampling.stop)
        for index, _ in drawn:
            if index not in ends and (piece := text.push(index)):
                yield piece
            if text.is_stopped:
                break
        if rest := text.finish():
            yield rest

    return pieces()


def draw_ids(
    model: Transformer,
    prompt: Sequence[int],
    sampling: Sampling | None = None,
    *,
    stop_ids: Collection[int] = (),
    number: int = 0,
    num_ids: int | None = None,
) -> Iterator[Drawn]:
    """The ids that follow, one at a time, each with its log-probability; no text is involved.

    stop_ids:  end it, and are the last one told
    number:    of its random stream
    num_ids:   draw among the first so many ids; a model may have more rows than its tokenizer has ids
    Errors:    UserError for a prompt that is empty, does not fit the context or has an unknown id, at once; when the
               scores are not numbers
    """
    config = model.config
    if not prompt:
        raise UserError("the prompt is empty; expected at least one token, such as BOS")
    if problem := misfit(len(prompt), config.max_position_embeddings):
        raise UserError(problem)
    if not 0 <= min(prompt) <= max(prompt) < config.vocab_size:
        raise UserError(f"the prompt has ids outside 0..{config.vocab_size - 1}; use the model's own tokenizer")
    request = Request(prompt=prompt, sampling=sampling or Sampling(), stream=number, stop_ids=frozenset(stop_ids))
    return _draw_ids(model, request, num_ids)


@torch.inference_mode()
def _draw_ids(model: Transformer, request: Request, num_ids: int | None) -> Iterator[Drawn]:
    capacity, weight = request.num_tokens(model.config.max_position_embeddings), model.output_weight
    cache = KeyValueCache.allocate(model.config, 1, capacity, dtype=weight.dtype, device=weight.device)
    sampler, new = Sampler(request), request.prompt
    with evaluating(model):
        for _ in range(capacity - len(request.prompt)):
            tokens = torch.tensor([new], device=weight.device)  # [1, T], all of the prompt first, then one
            states = model.hidden_states(tokens, cache=cache).states  # [1, T, D]
            cache.advance(len(new))
            logits = model.logits(states[:, -1])[:, :num_ids]  # [1, V]
            if not logits.sum().isfinite():
                raise UserError("the model's scores are not numbers; its weights are damaged")
            [drawn] = choose(logits, [sampler])
            assert drawn is not None, "plain settings do not fail"
            yield drawn
            if drawn.id in request.stop_ids:
                return
            sampler.note(drawn.id)
            new = [drawn.id]
