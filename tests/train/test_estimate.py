"""The dry run: counts against closed forms, against real runs, and what it says about what it cannot count."""

import resource
from dataclasses import replace
from typing import Literal

import pytest
import torch

from unic import recipes
from unic.core.errors import ConfigError
from unic.core.run_folder import RunDir
from unic.method.losses import teacher_losses
from unic.method.types import Tokens, Widths
from unic.models.student import build_student
from unic.teachers import TEACHERS
from unic.teachers.fetch import WeightsFile
from unic.tools.estimate import IMAGENET_1K, Estimate, describe, estimate
from unic.train.build_run import build_run
from unic.train.loop import train
from unic.train.recipe import Recipe, SpeedConfig

VIT_B = {"dim": 768, "depth": 12, "tokens": 197, "patch": 16}


def vit_macs(*, dim: int, depth: int, tokens: int, patch: int) -> float:
    """Of a forward pass: 12 D^2 for each token and block, 2 T D for attention, and the patch embedding."""
    return tokens * depth * (12 * dim**2 + 2 * tokens * dim) + (tokens - 1) * 3 * patch**2 * dim


def ladder_macs(*, dim: int, depth: int, tokens: int, hidden: int, last: int, widths: list[int]) -> float:
    per_token = [(depth - 1) * (dim * hidden + hidden * w) + dim * last + last * w for w in widths]
    return tokens * sum(per_token)


@pytest.fixture(scope="module")
def vit_b() -> Estimate:
    return estimate(recipes.unic_vitb16(), None)


def test_a_vit_costs_what_the_closed_form_says_attention_included(vit_b: Estimate):
    without_attention = 2 * (vit_macs(**VIT_B) - 2 * 197**2 * 768 * 12)
    for teacher in vit_b.teachers:
        assert teacher.flops == pytest.approx(2 * vit_macs(**VIT_B), rel=0.001)
        assert teacher.flops > 1.03 * without_attention
    ladder = ladder_macs(dim=768, depth=12, tokens=197, hidden=768, last=3072, widths=4 * [768])
    assert vit_b.student_flops == pytest.approx(3 * 2 * (vit_macs(**VIT_B) + ladder), rel=0.03)
    assert vit_b.flops == vit_b.student_flops + sum(teacher.flops for teacher in vit_b.teachers)


@pytest.mark.parametrize("projector", ["ladder", "mlp", "linear"])
def test_every_projector_costs_what_its_closed_form_says(projector: Literal["ladder", "mlp", "linear"]):
    """A student of width 32 with two blocks, patches of 8 pixels and two teachers, of widths 192 and 64."""
    base = recipes.debug()
    teachers = tuple(
        f"timm:{name}?pretrained=0&image_size=32" for name in ("vit_tiny_patch16_224", "test_vit")
    )
    found = estimate(replace(base, teachers=teachers, ladder=replace(base.ladder, projector=projector)), 64)
    shared = {"dim": 32, "tokens": 17, "last": base.ladder.last_hidden, "widths": [192, 64]}
    heads = {
        "ladder": ladder_macs(**shared, depth=2, hidden=base.ladder.hidden),
        "mlp": ladder_macs(**shared, depth=1, hidden=0),  # behind the last block alone
        "linear": 17 * 32 * (192 + 64),
    }
    student = 3 * 2 * (vit_macs(dim=32, depth=2, tokens=17, patch=8) + heads[projector])
    student -= 2 * 16 * 3 * 8**2 * 32  # the pixels themselves get no gradient
    assert found.student_flops == pytest.approx(student, rel=0.03)


def test_parameters_and_checkpoint_have_their_closed_form(vit_b: Estimate):
    """Published: 85,799,424 for the encoder (with a mask token of 768, which ours has not), 141.7 M for the ladder."""
    found = vit_b
    assert found.encoder_parameters == 85_798_656
    mlp = 11 * (2 * 768 * 768 + 2 * 768) + 2 * 768 * 3072 + 3072 + 768
    assert found.ladder_parameters == 4 * 2 * mlp == 141_723_648
    total = found.encoder_parameters + found.ladder_parameters
    assert found.checkpoint_bytes == 3 * 4 * total
    frozen = 2 * 768  # the encoder's final norm
    assert found.memory.weights // 4 - total == 6 + 2 * 11  # mean and std; probabilities of drop path
    assert found.memory.gradients == 4 * (total - frozen) == found.memory.optimizer // 2


@pytest.fixture(scope="module")
def tiny() -> Recipe:
    return recipes.debug()


def counted(recipe: Recipe, **speed) -> Estimate:
    return estimate(replace(recipe, speed=SpeedConfig(**speed)), 64)


def test_activations_grow_with_the_micro_batch_and_shrink_with_bf16(tiny: Recipe):
    two, four, eight = (counted(tiny, micro_batch=n).memory.activations for n in (2, 4, 8))
    assert eight - four == pytest.approx(2 * (four - two), rel=0.02)
    # bf16 keeps a copy of every weight beside the smaller activations.
    halves = [counted(tiny, micro_batch=n, precision="bf16").memory.activations for n in (4, 8)]
    assert halves[1] - halves[0] < 0.8 * (eight - four)
    assert counted(tiny, micro_batch=4).flops == counted(tiny, micro_batch=8).flops


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_activations_are_those_that_a_real_step_keeps(precision: str, tiny: Recipe):
    """The real student on real tensors: every different piece of memory that autograd holds, parameters left out."""
    widths = Widths(512, 512)  # of resnet10t
    student = build_student(tiny.student, tiny.ladder, {"resnet10t": widths}, seed=0)
    own = {tensor.data_ptr() for tensor in (*student.parameters(), *student.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"),
    ):
        outputs = student(torch.zeros(8, 3, 32, 32, dtype=torch.uint8))
        targets = {name: Tokens(torch.ones(8, 512), torch.ones(8, 16, 512)) for name in outputs}
        teacher_losses(outputs, targets, tiny.loss).total_TB.sum()
    real = sum(t.untyped_storage().nbytes() for pointer, t in kept.items() if pointer not in own)
    assert counted(tiny, micro_batch=8, precision=precision).memory.activations == pytest.approx(
        real, rel=0.02
    )


def test_steps_weights_and_checkpoint_are_those_of_a_real_run(recipe: Recipe, tmp_path):
    found = estimate(recipe, 24)
    context, _ = build_run(recipe, RunDir(tmp_path), torch.device("cpu"))
    assert (found.num_steps, found.micro_batch) == (context.num_steps, context.micro_batch)
    parameters = [*context.teachers.parameters(), *context.teachers.buffers()]
    assert found.memory.teachers == sum(t.numel() * t.element_size() for t in parameters)
    assert [t.reference for t in found.teachers] == list(recipe.teachers)
    short = replace(recipe, optim=replace(recipe.optim, epochs=0.2, warmup_epochs=0.0))
    assert train(short, tmp_path / "run", torch.device("cpu"))
    (folder,) = (tmp_path / "run" / "checkpoints").iterdir()
    size = sum((folder / f"{name}.safetensors").stat().st_size for name in ("model", "optimizer"))
    assert found.checkpoint_bytes == pytest.approx(size, rel=0.15)  # headers weigh something in a tiny run


def test_without_a_number_of_images_it_counts_on_imagenet_and_says_so(tiny: Recipe):
    assumed, given = estimate(tiny, None), estimate(tiny, 1600)
    assert "not given, so the 1,281,167 of ImageNet-1K" in describe(assumed)
    assert assumed.num_steps == 2 * (IMAGENET_1K // 8)
    assert given.num_steps == 400 and given.images_seen == 3200
    assert "images: 1,600; 400 steps of 8, 3,200 seen" in describe(given)
    with pytest.raises(ConfigError, match="batch_size 8 is larger than the data set of 7 images"):
        estimate(tiny, 7)


def test_a_teacher_whose_shapes_only_its_file_tells_is_named_and_not_counted(tiny: Recipe):
    found = estimate(replace(tiny, teachers=(*tiny.teachers, "file:/nowhere/mine.safetensors")), 64)
    known, unknown = found.teachers
    assert known.flops and (unknown.flops, unknown.parameters) == (None, None)
    assert (
        "not counted, because only their files tell their shapes: file:/nowhere/mine.safetensors"
        in describe(found)
    )
    assert found.ladder_parameters > estimate(tiny, 64).ladder_parameters


def test_weights_that_have_to_be_fetched_are_listed_with_address_and_size(
    tiny: Recipe, monkeypatch, tmp_path
):
    monkeypatch.setenv("UNIC_CACHE", str(tmp_path))
    spec = TEACHERS["efficientnet_lite0"]
    file = WeightsFile(name="lite0.pth", url="https://example.org/lite0.pth", size=18_700_000)
    monkeypatch.setitem(TEACHERS._entries, "efficientnet_lite0", replace(spec, weights=file))
    found = estimate(replace(tiny, teachers=("efficientnet_lite0?image_size=64",)), 64)
    assert found.teachers[0].missing == file and found.teachers[0].flops
    assert "to fetch: efficientnet_lite0?image_size=64: https://example.org/lite0.pth (18.7 MB)" in describe(
        found
    )


def test_nothing_is_allocated_for_a_teacher_of_a_billion_parameters(tiny: Recipe):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = estimate(replace(tiny, teachers=("timm:vit_giant_patch14_reg4_dinov2?image_size=224",)), 64)
    assert found.teachers[0].parameters > 1_100_000_000
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 500e6
