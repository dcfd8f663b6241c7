"""Look at what a model expects next: python examples/next_token.py MODEL "And the Lord"

Prints the ten likeliest tokens after the text, and how surprised the model was by each token of the text itself.
"""

import math
import sys

import torch

from minimind import load_model


@torch.inference_mode()
def main(folder: str, text: str) -> None:
    model, tokenizer = load_model(folder)
    ids = [tokenizer.bos_id, *tokenizer.encode(text)]
    logprobs = model(torch.tensor([ids]))[0].log_softmax(-1)  # [T, V]

    print("surprise of each token, in bits:")
    for position, index in enumerate(ids[1:]):
        bits = -logprobs[position, index].item() / math.log(2)
        print(f"{bits:7.2f}  {tokenizer.decode([index])!r}")

    print("\nlikeliest next tokens:")
    best = logprobs[-1].topk(10)
    for logprob, index in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        print(f"{math.exp(logprob):7.2%}  {tokenizer.decode([index])!r}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
