"""Many prompts at once with a model that may be in training: what an evaluation, a rollout or a sample asks for.

The engine computes them with the live weights, under whatever autocast is on; the model is itself again afterwards.
"""

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from minimind.errors import UserError
from minimind.generation.engine import Engine
from minimind.generation.live_forward import LiveForward
from minimind.generation.packed_weights import evaluating
from minimind.generation.request import Event, FinishReason, Request
from minimind.generation.sampling import Sampling
from minimind.model import Transformer
from minimind.text.answers import Delta, join
from minimind.text.messages import Message
from minimind.text.tokenizer import Tokenizer

__all__ = ["Completion", "complete", "complete_requests", "complete_texts"]

# Nobody waits for a first word here, so prompts are read in larger pieces than a server's.
PREFILL_TOKENS = 1024


@dataclass
class Completion:
    """What followed a prompt.

    ids:            every id that was drawn, a final stop id included: token-in, token-out training needs it
    logprobs:       of each id, natural log, under the distribution it was drawn from (temperature, top-p, ... applied);
                    0 when greedy
    finish_reason:  "stop" for a stop id or a stop string; "length" for max_tokens or the end of the context
    text:           without stop id and stop string; of a chat's answer there are pieces in its place
    """

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    text: str = ""
    deltas: list[Delta] = field(default_factory=list)

    @property
    def message(self) -> Message:
        """A chat's answer."""
        return join(self.deltas)

    def take(self, event: Event) -> None:
        """Add what a step of the engine did."""
        if event.id is not None:
            self.ids.append(event.id)
            self.logprobs.append(event.logprob)
        self.text += event.text
        self.deltas += event.deltas
        self.finish_reason = event.finish_reason


def complete_texts(
    model: Transformer, tokenizer: Tokenizer, texts: Sequence[str], sampling: Sampling | None = None
) -> list[str]:
    """Continue each text. Errors: as `complete`"""
    prompts = [tokenizer.begin(ids) for ids in tokenizer.encode_batch(texts)]
    return [completion.text for completion in complete(model, tokenizer, prompts, sampling)]


def complete(
    model: Transformer,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling | None = None,
    *,
    stop_ids: Collection[int] | None = None,
    streams: Sequence[int] | None = None,
    batch_size: int = 32,
    context: int | None = None,
) -> list[Completion]:
    """Continue prompts of ids as text. Errors: UserError for a prompt that is empty, does not fit or has unknown ids

    stop_ids:    ids that end one; the tokenizer's EOS and PAD (`<|endoftext|>`) unless given
    streams:     the number of each one's random stream; 0, 1, ... unless given
    batch_size:  how many are computed at once
    context:     ids of a prompt and what follows, if fewer than the model takes
    """
    ends = frozenset(tokenizer.end_ids if stop_ids is None else stop_ids)
    request = Request(prompt=(), sampling=sampling or Sampling(), stop_ids=ends)
    numbered = zip(prompts, range(len(prompts)) if streams is None else streams, strict=True)
    requests = [replace(request, prompt=prompt, stream=stream) for prompt, stream in numbered]
    return complete_requests(model, tokenizer, requests, batch_size=batch_size, context=context)


def complete_requests(
    model: Transformer,
    tokenizer: Tokenizer,
    requests: Sequence[Request],
    *,
    batch_size: int = 32,
    context: int | None = None,
) -> list[Completion]:
    """What each request comes to. Errors: as `complete`; UserError when the model's scores are not numbers"""
    if not requests:
        return []
    limit = min(context or model.config.max_position_embeddings, model.config.max_position_embeddings)
    found = [Completion() for _ in requests]
    with evaluating(model):
        engine = Engine(
            model,
            tokenizer,
            max_rows=min(batch_size, len(requests)),
            capacity=max(request.num_tokens(limit) for request in requests),
            max_queue=len(requests),
            max_queue_tokens=sys.maxsize,
            prefill_tokens=PREFILL_TOKENS,
            forward=LiveForward,
        )
        for place, request in enumerate(requests):
            try:
                number = engine.submit(request)
            except UserError as error:
                raise UserError(f"prompt {place}: {error}") from None
            assert number == place, "an engine numbers its requests from 0 on"
        for event in engine.run():
            if event.finish_reason == "error":
                raise UserError(f"prompt {event.request}: {event.error}")
            found[event.request].take(event)
    return found
