"""A loss that ran away: told once, when it happens, since a run with it still ends and looks complete."""

__all__ = ["RisingLoss"]

# A hundredfold is no noise: from the loss of a guess (9 nats for 8,000 ids) nothing that still learns comes to 900.
FACTOR = 100.0
# Below this a loss is as good as 0, and what it is multiplied by says nothing.
LEAST = 0.1


class RisingLoss:
    """Watches the losses of a run, of whatever objective."""

    def __init__(self) -> None:
        self._lowest, self._is_told = float("inf"), False

    def seen(self, loss: float) -> str:
        """A warning where the loss is a hundred times the lowest one before; "" otherwise, and ever after."""
        before = max(self._lowest, LEAST)
        self._lowest = min(self._lowest, loss) if loss == loss else self._lowest
        if self._is_told or not loss >= FACTOR * before:
            return ""
        self._is_told = True
        return (
            f"the loss is {loss:,.4g}, more than a hundred times the {before:.4g} it was; the rates are probably too "
            "high: start anew with lower ones (train.muon_lr, train.lr, train.embedding_lr)"
        )
