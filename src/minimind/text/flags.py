"""What data says is not to be learnt: flags on a message, or on a whole row.

An answer that is flagged off stays as what was said before the next one, with weight 0. A flag that is null is absent,
and flags of what the assistant does not say mean nothing, as in AgentInstruct, where they are null.
"""

from collections.abc import Mapping
from typing import Any

__all__ = ["FLAGS", "UNFOLLOWED", "row_weight", "weight_of"]

# What each key says when it is true. `weight` is OpenAI's and Mistral's, `train` and `training` are axolotl's, `loss`
# and `loss_scale` are ms-swift's and AgentInstruct's.
FLAGS: Mapping[str, bool] = {
    "weight": True,
    "train": True,
    "training": True,
    "loss": True,
    "loss_scale": True,
    "mask": False,
}
# Flags of parts of a message: which part they mean is lost, so a row with one is refused.
UNFOLLOWED = ("train_detail", "loss_mask", "weights")
_WORDS = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}


def weight_of(message: Mapping[str, Any]) -> int:
    """0 or 1, as the message's flags say; 1 without any. A ValueError says what is wrong with them."""
    if parts := next((name for name in UNFOLLOWED if message.get(name)), None):
        raise ValueError(f"has {parts}, which flags parts of a message; flag whole messages, with weight 0 or 1")
    said = {
        name: _is_on(name, message[name]) == sense for name, sense in FLAGS.items() if message.get(name) is not None
    }
    if len(set(said.values())) > 1:
        shown = ", ".join(f"{name} {message[name]!r}" for name in said)
        raise ValueError(f"has flags that contradict each other: {shown}")
    return int(all(said.values()))


def row_weight(row: Mapping[str, Any]) -> int:
    """0 where the row as a whole is flagged off. Columns of these names often hold figures, so only plain flags count:
    a bool, and 0 or 1 for `weight`."""
    for name, sense in FLAGS.items():
        value = row.get(name)
        is_flag = isinstance(value, bool) or (name == "weight" and value in (0, 1))
        if is_flag and bool(value) != sense:
            return 0
    return 1


def _is_on(name: str, value: Any) -> bool:
    meant = _WORDS.get(value.strip().lower()) if isinstance(value, str) else value
    if isinstance(meant, bool) or (isinstance(meant, int | float) and meant in (0, 1)):
        return bool(meant)
    raise ValueError(f"has {name} {value!r}; expected 0 or 1, true or false, since an answer is learnt or it is not")
