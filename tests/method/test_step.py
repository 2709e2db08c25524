"""The step as a whole, against a straightforward derivation image by image in float64."""

import numpy as np
import torch
from reference_loss import reference_token_loss
from torch import Tensor

from unic.core.keyed_random import uniforms
from unic.method.config import LossConfig, StatisticsConfig
from unic.method.standardize import Standardizer
from unic.method.step import distill_step, validation_losses
from unic.method.types import Batch, Tokens, Widths

WIDTHS = {"a": Widths(3, 4), "b": Widths(5, 5)}
SEED = 11


class Source:
    """Two made-up teachers: fixed random maps of the pixels."""

    dims = WIDTHS

    def __init__(self, shift: float):
        g = torch.Generator().manual_seed(0)
        self.maps = {
            name: (torch.randn(12, w.cls, generator=g) + shift, torch.randn(12, w.patches, generator=g))
            for name, w in WIDTHS.items()
        }

    def __call__(self, batch: Batch) -> dict[str, Tokens]:
        x = batch.images.float().flatten(1) / 255
        return {name: Tokens(x @ c, (x @ p)[:, None].repeat(1, 2, 1)) for name, (c, p) in self.maps.items()}


class Student:
    """Another source, with one trainable number."""

    def __init__(self):
        self.scale = torch.tensor(0.8, requires_grad=True)
        self._source = Source(shift=0.5)

    def __call__(self, images: Tensor, draws: Tensor | None = None) -> dict[str, Tokens]:
        batch = Batch(images, torch.arange(len(images)), torch.arange(len(images)))
        return {n: Tokens(t.cls * self.scale, t.patches * self.scale) for n, t in self._source(batch).items()}


def batch_of(num: int) -> Batch:
    g = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (num, 3, 2, 2), generator=g, dtype=torch.uint8)
    return Batch(images, torch.arange(10, 10 + num), torch.full((num,), 4))


def standardizers() -> dict[str, Standardizer]:
    made = {name: Standardizer(widths, StatisticsConfig()) for name, widths in WIDTHS.items()}
    for s in made.values():
        s.cls_mean.fill_(0.3)
        s.patch_std.fill_(2.0)
    return made


def step(batch: Batch, student: Student, stats: dict[str, Standardizer], drop_prob: float = 0.5):
    return distill_step(
        student, Source(0.0), stats, batch, LossConfig(drop_prob=drop_prob), seed=SEED, num_drop_paths=3
    )


def test_the_step_is_the_method_image_by_image():
    batch, student, stats = batch_of(6), Student(), standardizers()
    found = step(batch, student, stats)
    features, outputs = Source(0.0)(batch), student(batch.images)
    draws = uniforms(SEED, "teacher dropping", batch.view, batch.index, 2).double().numpy()
    total, kept = 0.0, 0
    for i in range(6):
        losses = []
        for name in WIDTHS:
            s, t, out = stats[name], features[name], outputs[name]
            cls = (t.cls[i] - s.cls_mean) / (s.cls_std + 1e-6)
            patches = (t.patches[i] - s.patch_mean) / (s.patch_std + 1e-6)
            of_cls = reference_token_loss(out.cls[i].detach(), cls, LossConfig())
            of_patches = [
                reference_token_loss(out.patches[i, j].detach(), patches[j], LossConfig()) for j in range(2)
            ]
            losses.append((of_cls + np.mean(of_patches)) / 2)
        for number, loss in enumerate(losses):
            if loss == max(losses) or draws[i, number] >= 0.5:
                total, kept = total + loss, kept + 1
    assert found.kept_TB.sum() == kept < 12  # some were dropped, or this test says little
    np.testing.assert_allclose(found.loss_sum.item(), total, rtol=1e-5)


def test_no_gradient_reaches_the_teachers_and_statistics_wait_for_the_loop():
    batch, student, stats = batch_of(4), Student(), standardizers()
    before = {n: s.cls_mean.clone() for n, s in stats.items()}
    found = step(batch, student, stats)
    found.loss_sum.backward()
    assert torch.isfinite(student.scale.grad) and student.scale.grad != 0
    assert not any(m.sums.requires_grad for m in found.moments.values())
    assert not found.losses.total_TB.requires_grad
    assert all(torch.equal(before[n], stats[n].cls_mean) for n in stats)


def test_micro_batches_add_up_to_the_whole_batch():
    batch, stats = batch_of(7), standardizers()
    whole_student, parts_student = Student(), Student()
    whole = step(batch, whole_student, stats)
    whole.loss_sum.backward()
    parts = []
    for rows in (slice(0, 3), slice(3, 7)):
        part = step(Batch(batch.images[rows], batch.index[rows], batch.view[rows]), parts_student, stats)
        part.loss_sum.backward()
        parts.append(part)
    torch.testing.assert_close(sum(p.loss_sum for p in parts), whole.loss_sum)
    assert torch.equal(torch.cat([p.kept_TB for p in parts], dim=1), whole.kept_TB)
    torch.testing.assert_close(parts_student.scale.grad, whole_student.scale.grad)


def test_dropping_depends_on_the_image_and_not_on_its_place():
    batch = batch_of(8)
    order = torch.tensor([5, 2, 7, 0, 1, 3, 6, 4])
    shuffled = Batch(batch.images[order], batch.index[order], batch.view[order])
    first = step(batch, Student(), standardizers())
    second = step(shuffled, Student(), standardizers())
    assert torch.equal(first.kept_TB[:, order], second.kept_TB)


def test_validation_drops_nothing_and_moves_nothing():
    batch, student, stats = batch_of(5), Student(), standardizers()
    losses = validation_losses(student, Source(0.0), stats, batch, LossConfig())
    everything = step(batch, student, stats, drop_prob=0.0)
    torch.testing.assert_close(losses.total_TB, everything.losses.total_TB)
    assert everything.kept_TB.all()
