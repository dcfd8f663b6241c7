"""Distillation: learn from all that a teacher finds likely, not from the one token that was written.

    loss = Σ_t w_t · [ (1 − α) · −log p(y_t)  +  α · T² · KL(teacher_T ‖ student_T) ],    p_T = softmax(logits / T)

The teacher's distribution says which other tokens would have done, so each token teaches more. A temperature T above 1
shows more of its tail; T² keeps the gradient's size, which falls by that much. α = 0 is `next_token.py`.

`KeptDistillation` reads a teacher that was asked before: its K likeliest ids, with all others lumped into one event of
probability 1 − Σ p. That is a lower bound of the KL, and the KL itself when K is the whole vocabulary.

To read the metrics: `cross_entropy` is the student's loss on the text, comparable with that of any other training; `kl`
(at temperature T, in nats) falls towards 0 as the student becomes the teacher.

Source: Hinton et al. 2015, arXiv:1503.02531. Logits of both models are made for a slice of tokens at a time, as in
`cross_entropy.py`.
"""

from collections.abc import Callable
from dataclasses import fields
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from minimind.errors import ConfigError
from minimind.interfaces import Batch, Loss, Mean, TeacherBatch
from minimind.model import Transformer
from minimind.objectives.logprobs import token_slices
from minimind.objectives.next_token import with_balance
from minimind.text.tokenizer import Tokenizer

__all__ = ["Distillation", "KeptDistillation", "keep_likeliest", "require_same_vocabulary"]

# A slice of the weighted tokens and the student's log-probabilities there, [n, V] -> the goal's, [n, V].
Goal = Callable[[slice, Tensor], Tensor]


BatchType = TypeVar("BatchType", bound=Batch)


class _Objective(Generic[BatchType]):
    """What both share: how much the teacher counts, and at what temperature.

    num_ids:            the ids that both models know; None is all, and both have equally many
    router_coefficient: times the balance of the student's experts, if any
    """

    def __init__(
        self,
        temperature: float = 2.0,
        alpha: float = 0.5,
        *,
        num_ids: int | None = None,
        router_coefficient: float = 0.01,
    ) -> None:
        if temperature <= 0 or not 0 <= alpha <= 1:
            raise ConfigError(
                f"temperature is {temperature} and alpha {alpha}; expected a temperature above 0 and an alpha of 0 to 1"
            )
        self.temperature, self.alpha = temperature, alpha
        self.num_ids, self.router_coefficient = num_ids, router_coefficient

    def __call__(self, model: Transformer, batch: BatchType) -> Loss:
        hidden = model.hidden_states(batch.tokens, batch.lengths)
        keep = batch.weights != 0
        goal, settings = self.goal(batch, keep), (self.temperature, self.alpha, self.num_ids)
        total, cross_entropy, divergence = _distil(
            hidden.states[keep], model.output_weight, batch.targets[keep], batch.weights[keep], goal, *settings
        )
        weight = batch.weights.sum()
        means = {"loss": total.detach(), "cross_entropy": cross_entropy, "kl": divergence}
        loss = Loss(total, {name: Mean(figure, weight) for name, figure in means.items()})
        return with_balance(loss, hidden.router_logits, batch, model.config, self.router_coefficient)

    def goal(self, batch: BatchType, keep: Tensor) -> Goal:
        """How to get at the teacher's log-probabilities of the batch's weighted tokens."""
        raise NotImplementedError


class Distillation(_Objective[Batch]):
    """Learn from a teacher at hand, dense or a mixture, of any width; it is only asked, never trained."""

    def __init__(self, teacher: Transformer, temperature: float = 2.0, alpha: float = 0.5, **settings: Any) -> None:
        super().__init__(temperature, alpha, **settings)
        self.teacher = teacher

    def goal(self, batch: Batch, keep: Tensor) -> Goal:
        logprobs = _ask(self.teacher, batch, keep, self.temperature, self.num_ids)
        return lambda part, student: logprobs(part)


class KeptDistillation(_Objective[TeacherBatch]):
    """Learn from what `keep_likeliest` kept of a teacher, at the same temperature."""

    def goal(self, batch: TeacherBatch, keep: Tensor) -> Goal:
        ids, logprobs = batch.teacher_ids[keep], batch.teacher_logprobs[keep]  # [N, K]

        def goal(part: slice, student: Tensor) -> Tensor:
            """The kept ids as the teacher had them, the others in the student's own proportions: that lumps them."""
            rest = (1 - logprobs[part].exp().sum(-1, keepdim=True)).clamp_min(1e-12).log()
            student_rest = student.scatter(1, ids[part], -torch.inf).logsumexp(-1, keepdim=True)
            return (student + (rest - student_rest)).scatter(1, ids[part], logprobs[part])

        return goal


def keep_likeliest(
    teacher: Transformer, batch: Batch, num_kept: int, *, temperature: float, num_ids: int | None = None
) -> TeacherBatch:
    """The batch with the teacher's `num_kept` likeliest ids after each token that has weight."""
    keep = batch.weights != 0
    size = (*batch.tokens.shape, num_kept)
    ids, logprobs = batch.tokens.new_zeros(size), batch.weights.new_zeros(size)
    ask = _ask(teacher, batch, keep, temperature, num_ids)
    if best := [ask(part).topk(num_kept) for part in token_slices(int(keep.sum()))]:
        ids[keep] = torch.cat([part.indices for part in best])
        logprobs[keep] = torch.cat([part.values for part in best])
    shared = {field.name: getattr(batch, field.name) for field in fields(Batch)}
    return TeacherBatch(**shared, teacher_ids=ids, teacher_logprobs=logprobs)


def require_same_vocabulary(student: Tokenizer, teacher: Tokenizer) -> None:
    """A probability is of an id, so each id has to mean the same to both.

    Errors: ConfigError
    """
    if teacher.fingerprint != student.fingerprint:
        raise ConfigError(
            f"the teacher's tokenizer is {teacher.fingerprint[:12]} ({teacher.vocab_size:,} ids), the student's "
            f"{student.fingerprint[:12]} ({student.vocab_size:,} ids); take a teacher with the student's tokenizer, or "
            "let it write data to learn from with `minimind synthesize`"
        )


@torch.no_grad()
def _ask(
    teacher: Transformer, batch: Batch, keep: Tensor, temperature: float, num_ids: int | None
) -> Callable[[slice], Tensor]:
    """What gives the teacher's log-probabilities at a slice of the weighted tokens, [n, V] float32."""
    states = teacher.hidden_states(batch.tokens, batch.lengths).states[keep]
    matrix = teacher.output_weight.detach().to(states.dtype)
    return lambda part: _soften(_logits(states[part], matrix), temperature, num_ids)


def _distil(
    states: Tensor,
    output_weight: Tensor,
    targets: Tensor,
    weights: Tensor,
    goal: Goal,
    *settings: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """The sums over the weighted tokens: of the loss, and for reports of the cross entropy and of the KL."""
    if not torch.is_grad_enabled():
        # Inside a Function the mode always reads "off" and a parameter still "needs" its gradient.
        output_weight = output_weight.detach()
    return _Distil.apply(states, output_weight, targets, weights, goal, settings)  # pyright: ignore[reportReturnType]


class _Distil(torch.autograd.Function):
    """As `cross_entropy._WeightedCrossEntropy`, which this is at α = 0, bit for bit."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        output_weight: Tensor,
        targets: Tensor,
        weights: Tensor,
        goal: Goal,
        settings: tuple[float, float, int | None],
    ) -> tuple[Tensor, Tensor, Tensor]:
        temperature, alpha, num_ids = settings
        matrix = output_weight.to(states.dtype)
        needs_gradient = any(ctx.needs_input_grad[:2])
        states_gradient = torch.empty_like(states) if needs_gradient else None
        matrix_gradient = torch.zeros_like(output_weight, dtype=torch.float32) if needs_gradient else None
        cross_entropy = torch.zeros((), dtype=torch.float32, device=states.device)
        divergence = torch.zeros_like(cross_entropy)
        for part in token_slices(len(states)):
            logits = _logits(states[part], matrix)  # [n, V]
            student, chosen = _soften(logits, temperature, num_ids), targets[part, None]
            wanted = goal(part, student)
            probabilities = wanted.exp()
            divergence += ((probabilities * (wanted - student)).sum(-1) * weights[part]).sum()
            log_probabilities = logits.log_softmax(-1)
            cross_entropy -= (log_probabilities.gather(1, chosen).squeeze(1) * weights[part]).sum()
            if states_gradient is None or matrix_gradient is None:
                continue
            # (1 − α) (softmax − one-hot) + α T (student − goal), written over the log-probabilities.
            gradient = log_probabilities.exp_()
            gradient.scatter_add_(1, chosen, torch.full_like(chosen, -1, dtype=torch.float32))
            gradient.mul_(1 - alpha)[:, :num_ids].add_(student.exp_().sub_(probabilities), alpha=alpha * temperature)
            gradient = gradient.mul_(weights[part, None]).to(states.dtype)
            states_gradient[part] = gradient @ matrix
            matrix_gradient += gradient.T @ states[part]
        ctx.save_for_backward(states_gradient, matrix_gradient)
        ctx.mark_non_differentiable(cross_entropy, divergence)
        return (1 - alpha) * cross_entropy + alpha * temperature**2 * divergence, cross_entropy, divergence

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, scale: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        states_gradient, matrix_gradient = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
        return states_gradient * scale.to(states_gradient.dtype), matrix_gradient * scale, None, None, None, None


def _logits(states: Tensor, matrix: Tensor) -> Tensor:
    return (states @ matrix.T).float()


def _soften(logits: Tensor, temperature: float, num_ids: int | None) -> Tensor:
    return (logits[:, :num_ids] / temperature).log_softmax(-1)
