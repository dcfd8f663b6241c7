"""Tiny models: one whose weights are large enough to have opinions, and one that has learnt three lessons by heart."""

import pytest
import torch
from tests.evals.lessons import ROWS, TEXT
from tests.tiny import fresh_model, random_model

from minimind.model import Transformer
from minimind.text.conversation import Conversation, render
from minimind.text.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def opinionated() -> tuple[Transformer, Tokenizer]:
    tokenizer = Tokenizer.train(["the cat sat on the mat. Question: Answer: A. B. C. D. " * 3], 320)
    return random_model(spread=0.3, vocab_size=tokenizer.vocab_size, max_position_embeddings=48), tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """Of the model that was taught."""
    return Tokenizer.train([TEXT] * 3, 330)


@pytest.fixture(scope="session")
def taught(tokenizer: Tokenizer) -> Transformer:
    """A model that has learnt the lessons of `ROWS`."""
    model = fresh_model(vocab_size=tokenizer.vocab_size, max_position_embeddings=640)
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
