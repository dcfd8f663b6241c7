"""Tiny models: one whose weights are large enough to have opinions, and one that has learnt three lessons by heart."""

import pytest
import torch
from tests.evals.lessons import ROWS, TEXT

from minimind.model import ModelConfig, Transformer
from minimind.text.conversation import Conversation, render
from minimind.text.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def opinionated() -> tuple[Transformer, Tokenizer]:
    tokenizer = Tokenizer.train(["the cat sat on the mat. Question: Answer: A. B. C. D. " * 3], 320)
    torch.manual_seed(0)
    model = Transformer(
        ModelConfig(
            vocab_size=tokenizer.vocab_size,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            intermediate_size=32,
            max_position_embeddings=48,
        )
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval(), tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """Of the model that was taught."""
    return Tokenizer.train([TEXT] * 3, 330)


@pytest.fixture(scope="session")
def taught(tokenizer: Tokenizer) -> Transformer:
    """A model that has learnt the lessons of `ROWS`."""
    torch.manual_seed(0)
    small = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        intermediate_size=64,
        max_position_embeddings=640,
    )
    model = Transformer(small)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    lessons = [render(Conversation.parse(row["lesson"], "lesson"), tokenizer) for row in ROWS]
    for _ in range(80):
        for lesson in lessons:
            ids, weights = torch.tensor(lesson.ids), torch.tensor(lesson.weights)
            losses = torch.nn.functional.cross_entropy(model(ids[None, :-1])[0], ids[1:], reduction="none")
            ((losses * weights[1:]).sum() / weights.sum()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model
