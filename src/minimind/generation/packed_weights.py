"""Weights in the order in which oneDNN reads them, for generation on a CPU.

Few rows times a large matrix cost what it costs to read the matrix, and torch's own float32 product reads it badly: at
26M on one AMD core the products of a step take 7.5 / 17 / 33 ms for 1 / 8 / 32 rows as they are, and 3.3 / 5.2 / 14 ms
with packed weights. The server packs once (`precision.py`); `evaluating` does for as long as texts are generated,
because the weights of a model in training change after it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minimind.model import Transformer

__all__ = ["Product", "evaluating", "pack", "packed"]

# Activations [..., in] -> products [..., out].
Product = Callable[[Tensor], Tensor]
# Packed weights are copies. A model whose copy would be larger generates with its own.
MAX_COPY_BYTES = 2**31


@contextmanager
def evaluating(model: Transformer) -> Iterator[None]:
    """Dropout off and weights packed while texts are generated; the mode is as before afterwards."""
    was_training = model.training
    model.eval()
    try:
        with packed(model):
            yield
    finally:
        model.train(was_training)


@contextmanager
def packed(model: Transformer) -> Iterator[None]:
    """Inside, the model's linear layers compute with packed copies of their weights, which must not change there.

    The results are the same up to rounding. Nothing happens on a GPU, to compiled blocks, and to very large models.
    """
    layers = [layer for layer in model.layers.modules() if type(layer) is nn.Linear]
    size = sum(layer.weight.numel() * layer.weight.element_size() for layer in layers)
    is_compiled = any(getattr(block, "_compiled_call_impl", None) is not None for block in model.layers)
    # Another thread may be generating with this model; whoever packed it also unpacks it, and both stay right.
    is_packed = any("forward" in vars(layer) for layer in layers)
    if model.output_weight.is_cuda or is_compiled or is_packed or size > MAX_COPY_BYTES:
        yield
        return
    with torch.no_grad():
        products = [_as_the_layer(layer) for layer in layers]
    # A module's own attribute goes before its class's method.
    for layer, product in zip(layers, products, strict=True):
        vars(layer)["forward"] = product
    try:
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def pack(weight: Tensor, bias: Tensor | None = None) -> Product:
    """x [N, in] -> x · weight + bias, all of one type; the weight is copied into oneDNN's own order where it can be."""
    plain = partial(F.linear, weight=weight, bias=bias)
    if weight.is_cuda or not torch.backends.mkldnn.is_available():
        return plain
    try:
        order = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        product = partial(_packed_product, order, bias)
        # These two are what torch's compiler uses and no documented part of torch: believed only after a look.
        x = torch.ones(2, weight.shape[1], dtype=weight.dtype)
        scale = weight.float().abs().sum(1)
        close = ((product(x) - plain(x)).float().abs() <= 1e-2 * scale + 1e-6).all()
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        return plain
    return product if close else plain


def _packed_product(order: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    # oneDNN compiles a product for each number of rows and keeps it: after a day of any prompts, gigabytes of them.
    rows = x.numel() // x.shape[-1]
    padding = _rounded(rows) - rows
    if not padding:
        return torch.ops.mkldnn._linear_pointwise(x, order, bias, "none", [], "")
    wider = F.pad(x.flatten(0, -2), (0, 0, 0, padding))
    product = torch.ops.mkldnn._linear_pointwise(wider, order, bias, "none", [], "")[:rows]
    return product.view(*x.shape[:-1], -1)


def _rounded(rows: int) -> int:
    """`rows` or a few more, out of few numbers: two for each doubling, above 64 at most 32 or an eighth apart."""
    octave = (rows - 1).bit_length()
    step = max(1 << max(octave - 4, 0), min(1 << max(octave - 2, 0), 32))
    return -(-rows // step) * step


def _as_the_layer(layer: nn.Linear) -> Product:
    """The layer's product in the type that it computes in, which autocast decides."""
    weight, bias = layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
    if not torch.is_autocast_enabled("cpu"):
        return pack(weight, bias)
    dtype = torch.get_autocast_dtype("cpu")
    product = pack(weight.to(dtype), None if bias is None else bias.to(dtype))
    return lambda x: product(x.to(dtype))
