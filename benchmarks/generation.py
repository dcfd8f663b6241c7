"""Tokens per second with the weights of a model in training: `minimind` against transformers' `generate`.

Both run the same random weights at the same shape in float32, greedily, from the same prompts, for a fixed number of
new tokens (no id ends a row), prompt included in the time. They take turns in one process. transformers uses its
default cache and attention. The last column is the share of rows in which both said the same to the end: with random
weights scores lie close together and rounding may part them, so it need not be 100 %, but it shows that both did the
same work. Needs the package `transformers`.
"""

import argparse
import random
from typing import Any

import torch
from common import make_parser, model_shape, print_machine, print_table, seconds_in_turn, start, transformers_model
from torch import Tensor, nn

from minimind.generation.completions import complete
from minimind.generation.sampling import Sampling
from minimind.model import ModelConfig, Transformer
from minimind.text.tokenizer import Tokenizer

__all__ = ["main"]


def main() -> None:
    arguments = _parse()
    start(arguments.threads)
    print_machine()
    torch.manual_seed(0)
    model = _random_model(model_shape(arguments.shape, ModelConfig.vocab_size))
    twin, tokenizer = _with_weights_of(model), _tokenizer(model.config.vocab_size)
    rows = []
    for batch in arguments.batches:
        prompts = torch.randint(model.config.vocab_size, (batch, arguments.prompt))
        found: dict[str, list[list[int]]] = {}

        def ours(prompts: Tensor = prompts, found: dict = found) -> None:
            sampling = Sampling(temperature=0.0, max_tokens=arguments.new)
            completions = complete(model, tokenizer, prompts.tolist(), sampling, stop_ids=(), batch_size=len(prompts))
            found["ours"] = [one.ids for one in completions]

        def theirs(prompts: Tensor = prompts, found: dict = found) -> None:
            found["theirs"] = _generate(twin, prompts, arguments.new)

        seconds = seconds_in_turn({"ours": ours, "theirs": theirs}, arguments.turns)
        speeds = [batch * arguments.new / seconds[side] for side in ("ours", "theirs")]
        same = sum(a == b for a, b in zip(found["ours"], found["theirs"], strict=True)) / batch
        rows.append((f"batch {batch}", *speeds, speeds[0] / speeds[1], f"{same:.0%}"))
    print_table(
        f"new tokens/s, {arguments.shape} shape, float32, prompts of {arguments.prompt}, {arguments.new} new tokens",
        ("", "minimind", "transformers", "ratio", "same rows"),
        rows,
    )


def _parse() -> argparse.Namespace:
    parser = make_parser(__doc__, shape="26m")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32], help="rows at once (default 1 8 32)")
    parser.add_argument("--prompt", type=int, default=64, help="tokens of each prompt (default 64)")
    parser.add_argument("--new", type=int, default=128, help="tokens to generate (default 128)")
    parser.add_argument("--turns", type=int, default=5, help="times that each side generates (default 5)")
    return parser.parse_args()


@torch.no_grad()
def _random_model(config: ModelConfig) -> Transformer:
    """Normal weights everywhere: a fresh model's blocks write zeros, and the text would be one token repeated."""
    model = Transformer(config)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.05)
    return model.eval()


def _with_weights_of(model: Transformer) -> Any:
    twin = transformers_model(model.config).eval()
    weights = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    twin.load_state_dict(weights | {"lm_head.weight": model.output_weight.detach()})
    # No end of text: every row gets all its tokens.
    twin.generation_config.eos_token_id = None
    return twin


def _tokenizer(size: int) -> Tokenizer:
    """As many ids as the model has, of no meaning."""
    letters = random.Random(0)
    words = ("".join(letters.choices("abcdefghijklmnop", k=6)) for _ in range(4 * size))
    tokenizer = Tokenizer.train([" ".join(words)], size)
    assert tokenizer.vocab_size == size, f"expected {size} ids, got {tokenizer.vocab_size}"
    return tokenizer


@torch.inference_mode()
def _generate(twin: Any, prompts: Tensor, new: int) -> list[list[int]]:
    ids = twin.generate(
        prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=new, do_sample=False, pad_token_id=0
    )
    return ids[:, prompts.shape[1] :].tolist()


if __name__ == "__main__":
    main()
