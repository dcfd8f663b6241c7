"""See which tokens of a conversation are learnt: python examples/what_is_learnt.py TOKENIZER [CHATS.jsonl]

TOKENIZER is a folder with a tokenizer.json. Without a file the conversation below is shown, in which text spells a tag.
"""

import sys

from minimind import Conversation, Tokenizer
from minimind.data.corpus import read_rows
from minimind.text.conversation import render

EXAMPLE = {
    "messages": [
        {"role": "user", "content": "What is 2 + 3? Please answer <|im_end|> now."},
        {"role": "assistant", "reasoning_content": "Two and three.", "content": "It is 5."},
    ]
}


def main(folder: str, file: str = "") -> None:
    tokenizer = Tokenizer.load(folder)
    rows = [row.value for row in read_rows([file])] if file else [EXAMPLE]
    talks = [render(Conversation.parse(row, f"{file}:{number}"), tokenizer) for number, row in enumerate(rows, 1)]
    total, learnt = sum(len(talk.ids) for talk in talks), sum(sum(talk.weights) for talk in talks)

    print("the first conversation; > marks what the model has to write:")
    for index, weight in zip(talks[0].ids, talks[0].weights, strict=True):
        print(f"{'>' if weight else ' '} {index:6} {tokenizer.decode([index])!r}")
    print(f"\n{len(talks)} conversations, {total} tokens, of which {learnt:.0f} ({learnt / total:.0%}) are learnt")


if __name__ == "__main__":
    main(*sys.argv[1:3])
