"""Continue a text, whole and then in pieces as they come: python examples/generate_text.py MODEL "Once upon a time"

MODEL is a run folder such as runs/quickstart/pretrain, a checkpoint, or a Hugging Face folder.
"""

import sys

from minimind import generate, load_model
from minimind.generation.generate import stream
from minimind.generation.sampling import Sampling


def main(folder: str, prompt: str) -> None:
    model, tokenizer = load_model(folder)
    print("the likeliest text:")
    print(prompt + generate(model, tokenizer, prompt, temperature=0, max_tokens=40))
    for seed in (1, 2):
        print(f"\ndrawn with seed {seed}:")
        print(prompt, end="")
        for piece in stream(model, tokenizer, prompt, Sampling(temperature=0.8, max_tokens=40, seed=seed)):
            print(piece, end="", flush=True)
        print()


if __name__ == "__main__":
    main(*sys.argv[1:3])
