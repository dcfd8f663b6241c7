"""Distillation is its formula; it is next-token prediction at α = 0, and silent when the student is the teacher."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.objectives.watch import Watch
from tests.tiny import EXPERTS, SHAPE
from torch import Tensor

from minimind.errors import ConfigError
from minimind.interfaces import Batch, TeacherBatch
from minimind.model import Transformer
from minimind.objectives.cross_entropy import SLICE_TOKENS
from minimind.objectives.distillation import Distillation, KeptDistillation, keep_likeliest, require_same_vocabulary
from minimind.objectives.next_token import NextToken
from minimind.text.tokenizer import Tokenizer


def random_batch(
    rows: int = 2, lengths: tuple[int, ...] | None = (5, 7, 3, 9), num_ids: int = SHAPE.vocab_size
) -> Batch:
    generator = torch.Generator().manual_seed(1)
    tokens, targets = torch.randint(0, num_ids, (2, rows, 12), generator=generator)
    weights = torch.rand(rows, 12, generator=generator) * (torch.rand(rows, 12, generator=generator) > 0.3)
    return Batch(tokens=tokens, targets=targets, weights=weights, lengths=lengths, num_tokens=tokens.numel())


def gradients(total: Tensor, model: Transformer) -> list[Tensor]:
    return list(torch.autograd.grad(total, list(model.parameters())))


def by_hand(
    student: Transformer, teacher: Transformer, batch: Batch, temperature: float, alpha: float, num_ids: int | None
) -> Tensor:
    """All logits at once."""
    logits = student.logits(student.hidden_states(batch.tokens, batch.lengths).states).flatten(0, 1)
    with torch.no_grad():
        wanted = teacher.logits(teacher.hidden_states(batch.tokens, batch.lengths).states).flatten(0, 1)
    soft, goal = ((part[:, :num_ids] / temperature).log_softmax(-1) for part in (logits, wanted))
    divergence = F.kl_div(soft, goal, reduction="none", log_target=True).sum(-1)
    hard = F.cross_entropy(logits, batch.targets.flatten(), reduction="none")
    return (((1 - alpha) * hard + alpha * temperature**2 * divergence) * batch.weights.flatten()).sum()


@pytest.mark.parametrize("of_teacher", [{"hidden_size": 48}, EXPERTS])
@pytest.mark.parametrize(("temperature", "alpha"), [(1.0, 1.0), (2.0, 0.5), (0.7, 0.2)])
def test_loss_and_gradients_are_the_formula(
    make_model: Callable[..., Transformer], of_teacher: dict[str, Any], temperature: float, alpha: float
) -> None:
    student, teacher, batch = make_model(0), make_model(1, **of_teacher), random_batch()
    loss = Distillation(teacher, temperature, alpha)(student, batch)
    expected = by_hand(student, teacher, batch, temperature, alpha, None)
    torch.testing.assert_close(loss.total, expected, rtol=1e-5, atol=0)
    for ours, theirs in zip(gradients(loss.total, student), gradients(expected, student), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * theirs.abs().max().item())
    figures = {name: (mean.total / mean.weight).item() for name, mean in loss.means.items()}
    combined = (1 - alpha) * figures["cross_entropy"] + alpha * temperature**2 * figures["kl"]
    assert set(figures) == {"loss", "cross_entropy", "kl"} and figures["loss"] == pytest.approx(combined, rel=1e-5)


def test_the_gradient_is_right_across_slices(make_model: Callable[..., Transformer]) -> None:
    student, teacher, batch = make_model(0), make_model(1), random_batch(2 * SLICE_TOKENS // 12 + 20, None)
    assert (batch.weights != 0).sum() > SLICE_TOKENS
    loss = Distillation(teacher)(student, batch).total
    for ours, theirs in zip(
        gradients(loss, student), gradients(by_hand(student, teacher, batch, 2.0, 0.5, None), student), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * theirs.abs().max().item())


def test_ids_that_only_one_model_has_rows_for_are_left_out_of_the_divergence(
    make_model: Callable[..., Transformer],
) -> None:
    student, teacher, batch = make_model(0), make_model(1, vocab_size=320), random_batch(num_ids=290)
    loss = Distillation(teacher, num_ids=290)(student, batch).total
    expected = by_hand(student, teacher, batch, 2.0, 0.5, 290)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    for ours, theirs in zip(gradients(loss, student), gradients(expected, student), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * theirs.abs().max().item())


@pytest.mark.parametrize("changes", [{}, EXPERTS])
@pytest.mark.parametrize("is_bfloat16", [False, True])
def test_without_the_teachers_share_it_is_next_token_prediction_bit_for_bit(
    make_model: Callable[..., Transformer], changes: dict[str, Any], is_bfloat16: bool
) -> None:
    student, batch = make_model(0, **changes), random_batch()
    objectives = (NextToken(0.3), Distillation(make_model(1), alpha=0.0, router_coefficient=0.3))
    with torch.autocast("cpu", torch.bfloat16, enabled=is_bfloat16):
        plain, ours = (objective(student, batch) for objective in objectives)
    assert torch.equal(ours.total, plain.total)
    assert torch.equal(ours.means["cross_entropy"].total, plain.means["loss"].total)
    assert all(map(torch.equal, gradients(ours.total, student), gradients(plain.total, student)))


@pytest.mark.parametrize("changes", [{}, EXPERTS])
def test_a_student_that_is_the_teacher_has_nothing_to_learn(
    make_model: Callable[..., Transformer], changes: dict[str, Any]
) -> None:
    student, teacher, batch = make_model(0, **changes), make_model(0, **changes), random_batch()
    loss = Distillation(teacher, alpha=1.0, router_coefficient=0.0)(student, batch)
    assert loss.total == 0 and loss.means["kl"].total == 0
    assert not any(gradient.any() for gradient in gradients(loss.total, student))


def test_the_teacher_gets_no_gradient(make_model: Callable[..., Transformer]) -> None:
    student, teacher = make_model(0), make_model(1)
    Distillation(teacher)(student, random_batch()).total.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(parameter.grad is not None for parameter in student.parameters())


# ---- a teacher that was asked before


def test_keeping_the_whole_vocabulary_is_asking_the_teacher(make_model: Callable[..., Transformer]) -> None:
    student, teacher, batch = make_model(0), make_model(1), random_batch()
    kept = keep_likeliest(teacher, batch, SHAPE.vocab_size, temperature=1.5)
    ours, theirs = KeptDistillation(1.5, 0.6)(student, kept), Distillation(teacher, 1.5, 0.6)(student, batch)
    torch.testing.assert_close(ours.total, theirs.total, rtol=1e-6, atol=0)
    torch.testing.assert_close(ours.means["kl"].total, theirs.means["kl"].total, rtol=1e-5, atol=0)
    for a, b in zip(gradients(ours.total, student), gradients(theirs.total, student), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6 * b.abs().max().item())


@pytest.mark.parametrize("num_kept", [1, 5, 60])
def test_what_was_not_kept_is_one_event(make_model: Callable[..., Transformer], num_kept: int) -> None:
    """Autograd's gradient of the KL over K + 1 events, without the trick that fills the lump in."""
    student, teacher, batch = make_model(0), make_model(1), random_batch()
    kept = keep_likeliest(teacher, batch, num_kept, temperature=2.0, num_ids=290)
    loss = KeptDistillation(2.0, 1.0, num_ids=290)(student, kept)
    keep = batch.weights != 0
    logits = student.logits(student.hidden_states(batch.tokens, batch.lengths).states[keep])[:, :290]
    soft = (logits / 2.0).softmax(-1).gather(1, kept.teacher_ids[keep])
    goal = kept.teacher_logprobs[keep].exp()
    events = [torch.cat([part, 1 - part.sum(-1, keepdim=True)], -1) for part in (soft, goal)]
    divergence = (events[1] * (events[1] / events[0]).log()).sum(-1)
    expected = 4.0 * (divergence * batch.weights[keep]).sum()
    torch.testing.assert_close(loss.total, expected, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(gradients(loss.total, student), gradients(expected, student), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * theirs.abs().max().item())


def test_keeping_more_comes_closer_to_the_divergence_from_below(make_model: Callable[..., Transformer]) -> None:
    student, teacher, batch = make_model(0), make_model(1), random_batch()

    def divergence(num_kept: int) -> float:
        kept = keep_likeliest(teacher, batch, num_kept, temperature=2.0)
        return KeptDistillation(2.0)(student, kept).means["kl"].total.item()

    figures = [divergence(num_kept) for num_kept in (1, 4, 16, 64, SHAPE.vocab_size - 1, SHAPE.vocab_size)]
    assert figures == sorted(figures) and figures[0] < 0.9 * figures[-1]


def test_what_is_kept_are_the_likeliest_ids_in_order_where_a_token_has_weight(
    make_model: Callable[..., Transformer],
) -> None:
    teacher, batch = make_model(1), random_batch()
    kept = keep_likeliest(teacher, batch, 4, temperature=0.8, num_ids=290)
    assert isinstance(kept, TeacherBatch) and kept.weight == batch.weight and kept.lengths == batch.lengths
    logits = teacher.logits(teacher.hidden_states(batch.tokens, batch.lengths).states)[..., :290]
    best = (logits / 0.8).log_softmax(-1).topk(4)
    keep = batch.weights != 0
    assert torch.equal(kept.teacher_ids[keep], best.indices[keep]) and not kept.teacher_ids[~keep].any()
    torch.testing.assert_close(kept.teacher_logprobs[keep], best.values[keep])
    assert not kept.teacher_logprobs.requires_grad


def test_a_student_as_sure_as_the_teacher_gives_no_nan(make_model: Callable[..., Transformer]) -> None:
    """All probability on one id: what is left of it rounds to 0, for both."""
    student, batch = make_model(0), random_batch()
    with torch.no_grad():
        student.norm.weight.mul_(1000.0)
    kept = keep_likeliest(student, batch, 2, temperature=1.0)
    loss = KeptDistillation(1.0, 1.0)(student, kept)
    assert torch.isfinite(loss.total) and loss.means["kl"].total.abs() < 1e-3
    assert all(torch.isfinite(gradient).all() for gradient in gradients(loss.total, student))


# ---- what both share


@pytest.mark.parametrize("changes", [{}, EXPERTS])
def test_without_weight_loss_and_gradients_are_zero(
    make_model: Callable[..., Transformer], changes: dict[str, Any]
) -> None:
    student, batch = make_model(0, **changes), random_batch()
    empty = Batch(tokens=batch.tokens, targets=batch.targets, weights=torch.zeros(2, 12), num_tokens=24)
    teacher = make_model(1)
    losses = [
        Distillation(teacher)(student, empty),
        KeptDistillation()(student, keep_likeliest(teacher, empty, 3, temperature=2.0)),
    ]
    for loss in losses:
        assert loss.total == 0 and not any(gradient.any() for gradient in gradients(loss.total, student))


def test_logits_of_both_models_are_held_for_a_slice_only(make_model: Callable[..., Transformer]) -> None:
    student, teacher, batch = make_model(0), make_model(1), random_batch(SLICE_TOKENS // 4, None)
    num_tokens = int((batch.weights != 0).sum())
    assert num_tokens > 2 * SLICE_TOKENS
    with Watch() as watch:
        Distillation(teacher)(student, batch).total.backward()
    assert watch.largest == SLICE_TOKENS * SHAPE.vocab_size


def test_measuring_takes_no_gradient(make_model: Callable[..., Transformer]) -> None:
    student, batch = make_model(0), random_batch()
    objective = Distillation(make_model(1))
    with torch.no_grad():
        loss = objective(student, batch)
    assert not loss.total.requires_grad and torch.equal(loss.total, objective(student, batch).total.detach())


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"alpha": 1.1}, {"alpha": -0.1}])
def test_settings_without_meaning_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"expected a temperature above 0 and an alpha of 0 to 1"):
        KeptDistillation(**settings)


def test_a_teacher_with_another_vocabulary_is_refused(tmp_path: Path) -> None:
    ours, other = (Tokenizer.train(["hello world", "你好，世界"], size) for size in (295, 293))
    ours.save(tmp_path)
    require_same_vocabulary(ours, Tokenizer.load(tmp_path))
    with pytest.raises(ConfigError, match=r"the teacher's tokenizer is \w{12} \(293 ids\), the student's \w{12} \(295"):
        require_same_vocabulary(ours, other)
