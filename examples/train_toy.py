"""Train a toy on a handful of strings with the package's own loop, in seconds: python examples/train_toy.py"""

import numpy as np

from minimind import ModelConfig, Tokenizer, Transformer, generate
from minimind.data.loader import PackedRows
from minimind.objectives.next_token import NextToken
from minimind.training.optimizer import make_optimizers
from minimind.training.settings import TrainConfig
from minimind.training.trainer import Trainer

TEXTS = ["the cat sat on the mat", "the dog sat on the log", "the bird sat in the tree", "猫坐在垫子上"]


class Texts:
    """Documents as ids and weights; the first id has nothing before it and weighs nothing."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.ids = [np.array([tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id]) for text in TEXTS]
        self.lengths = np.array([len(ids) for ids in self.ids])

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        return self.ids[number], np.array([0, *[1] * (len(self.ids[number]) - 1)], dtype=np.float32)


def main(steps: int = 40) -> None:
    tokenizer = Tokenizer.train(TEXTS, 300)
    model = Transformer(ModelConfig(vocab_size=300, hidden_size=64, num_hidden_layers=2, intermediate_size=128))
    settings, source = TrainConfig(warmup_steps=5), PackedRows(Texts(tokenizer), context=64, batch_tokens=128, seed=0)
    rates = {name: getattr(settings, name) for name in ("muon_lr", "lr", "embedding_lr", "weight_decay")}
    optimizers = make_optimizers(model, name="muon", betas=(settings.beta1, settings.beta2), **rates)
    parts = {"objective": NextToken(), "source": source, "optimizers": optimizers, "settings": settings}
    trainer = Trainer(model=model, total_steps=steps, **parts)
    for step in range(1, steps + 1):
        print(f"step {step}: loss {trainer.update().loss:.3f}")
    print(generate(model, tokenizer, ["the cat", "the dog", "猫"], temperature=0, max_tokens=20))


if __name__ == "__main__":
    main()
