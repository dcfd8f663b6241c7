"""How well a small model predicts held-out text after so many seconds of training by the default recipe.

The schedule is laid out to end with the time (--seconds, and a separate run for each of --marks), from a short
measurement with a model that is thrown away. The clock counts training steps with the making of their batches;
reading, tokenizing, the measurement and the evaluation are outside. `compile=on` compiles in the first step, on the
clock. With --set steps=N the clock is only read, and the run is the same on every machine.

Bits per byte: the summed loss of BOS + text + EOS of each held-out document, at most 1,024 tokens of it, over the bytes
of that text; in float32. Any option of TrainConfig can be set: --set muon_lr=0.03 --set warmup_steps=20.
"""

import argparse

from common import (
    DTYPES,
    add_text_options,
    dtype_name,
    dtypes_to_compare,
    held_out_bits_per_byte,
    load_texts,
    make_parser,
    model_shape,
    print_machine,
    print_table,
    read_rows,
    start,
)
from sides import TimedRun, add_train_options, train_settings, trainer

from minimind.text.tokenizer import Tokenizer
from minimind.training.settings import TrainConfig
from minimind.training.trainer import Trainer

__all__ = ["main"]


def main() -> None:
    arguments = _parse()
    start(arguments.threads)
    print_machine()
    tokenizer = Tokenizer.load(arguments.tokenizer)
    documents = load_texts(arguments.texts, tokenizer, arguments.limit)
    valid = read_rows(arguments.valid, arguments.limit)
    settings: TrainConfig = arguments.settings
    dtype = DTYPES[settings.dtype] if settings.dtype != "auto" else dtypes_to_compare("auto")[-1]
    config = model_shape(arguments.shape, tokenizer.vocab_size)

    def make() -> Trainer:
        return trainer(config, documents, settings, dtype=dtype, context=arguments.context)

    rows = []
    for seconds in [arguments.seconds] if settings.steps else [*arguments.marks, arguments.seconds]:
        run = TimedRun(make, seconds)
        while not run.is_over:
            run.step()
        model = run.trainer.model.eval()
        score = held_out_bits_per_byte(model, tokenizer, valid)
        budget = f"{settings.steps:,} steps" if settings.steps else f"{seconds:g} s"
        done = f"{run.trainer.step:,} of {run.trainer.total_steps:,}"
        rows.append((budget, run.seconds, done, run.tokens, run.tokens / run.seconds, score))
    print_table(
        f"{arguments.shape} shape, {tokenizer.vocab_size:,} ids, {len(documents):,} documents, {dtype_name(dtype)}, "
        f"{' '.join(arguments.set) or 'default recipe'}",
        ("budget", "trained s", "steps", "tokens", "tokens/s", "bits per byte"),
        rows,
    )


def _parse() -> argparse.Namespace:
    parser = make_parser(__doc__, shape="5m")
    add_text_options(parser)
    parser.add_argument("--seconds", type=float, default=600, help="training time (default 600)")
    parser.add_argument("--marks", type=float, nargs="*", default=[], help="other training times, a run for each")
    parser.add_argument("--context", type=int, default=1024, help="width of a row (default 1024)")
    add_train_options(parser)
    arguments = parser.parse_args()
    arguments.settings = train_settings(parser, arguments.shape, arguments.set)
    return arguments


if __name__ == "__main__":
    main()
