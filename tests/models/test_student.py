"""Ladder and student: the sum of the paper, the names of the published checkpoints, what is trained and what is not."""

import math

import pytest
import torch
from inputs import random_images
from torch import nn

from unic.core.errors import ConfigError
from unic.method.types import Tokens, Widths
from unic.models.config import LadderConfig, StudentConfig
from unic.models.ladder import Ladder
from unic.models.student import Student, build_student

TEACHERS = {"a": Widths(5, 5), "b": Widths(7, 3)}
VIT = StudentConfig(model=None, image_size=16, width=8, depth=3, heads=2, patch_size=8, drop_path=0.0)
SMALL = LadderConfig(hidden=6, last_hidden=10)


def student(ladder: LadderConfig = SMALL, **changes) -> Student:
    fields = {
        "model": None,
        "image_size": 16,
        "width": 8,
        "depth": 3,
        "heads": 2,
        "patch_size": 8,
        "drop_path": 0.0,
    }
    return build_student(StudentConfig(**{**fields, **changes}), ladder, TEACHERS, seed=0)


def test_the_ladder_is_the_sum_of_the_paper():
    """s_t = sum over blocks of W2 GELU(W1 x + b1) + b2, in float64 from the stored parameters (UNIC, Sec. 3.2)."""
    model = student()
    outputs = model(random_images(16, num=3))
    state = {name: tensor.double() for name, tensor in model.ladder.state_dict().items()}
    blocks = model.encoder.block_outputs(random_images(16, num=3))
    for name in TEACHERS:
        for kind, attribute in (("cls", "cls"), ("patch", "patches")):
            expected = 0
            for number, tokens in enumerate(blocks):
                x, key = getattr(tokens, attribute).double(), f"heads.{name}.{kind}.{number}.layers"
                h = x @ state[f"{key}.0.weight"].T + state[f"{key}.0.bias"]
                h = 0.5 * h * (1 + torch.erf(h / math.sqrt(2)))
                expected = expected + h @ state[f"{key}.2.weight"].T + state[f"{key}.2.bias"]
            torch.testing.assert_close(
                getattr(outputs[name], attribute).double(), expected, rtol=1e-4, atol=1e-6
            )


def test_hidden_widths_and_names_are_the_published_ones():
    shapes = {name: tuple(p.shape) for name, p in student().ladder.named_parameters()}
    assert shapes["heads.a.cls.0.layers.0.weight"] == (6, 8)
    assert shapes["heads.a.cls.2.layers.0.weight"] == (10, 8)
    assert shapes["heads.b.patch.2.layers.2.weight"] == (3, 10)
    assert len(shapes) == 2 * 2 * 3 * 4  # teachers, token types, blocks, (weight, bias) x 2


def test_the_published_ladder_has_141_7_million_parameters():
    """Four teachers of 768 features on ViT-B: with the encoder this makes the 870 MB of the released file."""
    with torch.device("meta"):
        ladder = Ladder(
            {f"t{i}": Widths(768, 768) for i in range(4)}, dim=768, num_blocks=12, cfg=LadderConfig()
        )
    assert sum(p.numel() for p in ladder.parameters()) == 141_723_648


@pytest.mark.parametrize(
    ("cfg", "read"),
    [
        (LadderConfig(projector="linear"), {2}),
        (LadderConfig(projector="mlp", last_hidden=4), {2}),
        (LadderConfig(blocks=(0, -1), hidden=4, last_hidden=4), {0, 2}),
    ],
)
def test_only_the_chosen_blocks_are_read(cfg: LadderConfig, read: set[int]):
    ladder = student(cfg).ladder
    blocks = [
        Tokens(torch.randn(2, 8, requires_grad=True), torch.randn(2, 4, 8, requires_grad=True))
        for _ in range(3)
    ]
    sum(t.cls.sum() + t.patches.sum() for t in ladder(blocks).values()).backward()
    assert {number for number, tokens in enumerate(blocks) if tokens.cls.grad is not None} == read
    assert {number for number, tokens in enumerate(blocks) if tokens.patches.grad is not None} == read


def test_projectors_start_as_published():
    ladder = Ladder(
        {"a": Widths(256, 256)}, dim=128, num_blocks=2, cfg=LadderConfig(hidden=256, last_hidden=256)
    )
    for name, parameter in ladder.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        else:
            assert abs(parameter.std() - 0.02) < 0.001 and abs(parameter.mean()) < 0.001


def test_the_final_norm_is_frozen_and_untouched_by_training():
    model = student()
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1
    )
    for _ in range(2):
        sum(
            t.cls.square().sum() + t.patches.square().sum() for t in model(random_images(16, num=3)).values()
        ).backward()
        optimizer.step()
    norm = model.encoder.model.norm
    assert torch.equal(norm.weight, torch.ones(8)) and torch.equal(norm.bias, torch.zeros(8))
    without_gradient = {n for n, p in model.named_parameters() if p.grad is None}
    assert without_gradient == {"encoder.model.norm.weight", "encoder.model.norm.bias"}


def test_the_same_seed_gives_the_same_student_and_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = student(), student()
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    other = build_student(VIT, SMALL, TEACHERS, seed=1)
    assert not torch.equal(
        first.encoder.model.patch_embed.proj.weight, other.encoder.model.patch_embed.proj.weight
    )


def test_dropped_branches_follow_the_draws_and_nothing_else():
    model = student(drop_path=0.5)
    assert model.num_draws == 4  # two branches a block; the first block's probability is 0
    x = random_images(16)
    nothing = torch.ones(2, 4)
    everything = torch.zeros(2, 4)
    with torch.no_grad():
        kept, dropped = model(x, nothing)["a"].cls, model(x, everything)["a"].cls
        mixed = model(x, torch.stack([nothing[0], everything[1]]))["a"].cls
        torch.testing.assert_close(mixed[0], kept[0])
        torch.testing.assert_close(mixed[1], dropped[1])
        assert not torch.equal(kept[1], dropped[1])
        torch.testing.assert_close(model.eval()(x, everything)["a"].cls, model(x)["a"].cls)


def test_a_dropped_branch_is_skipped_and_a_kept_one_scaled():
    model = student(drop_path=0.5)
    block = model.encoder.model.blocks[2]
    seen: dict[str, torch.Tensor] = {}
    block.attn.register_forward_hook(lambda _m, _i, out: seen.update(attention=out))
    block.drop_path1.register_forward_hook(lambda _m, _i, out: seen.update(dropped=out))
    draws = torch.full((2, 4), 0.9)
    draws[1, 2] = 0.4
    with torch.no_grad():
        model(random_images(16), draws)
    torch.testing.assert_close(seen["dropped"][0], seen["attention"][0] / 0.5)
    assert not seen["dropped"][1].any()


def test_registers_are_left_out_of_the_patches():
    model = student(registers=3)
    tokens = model.encoder(random_images(16, num=3))
    assert tokens.patches.shape == (3, 4, 8)


def test_a_named_vit_and_its_dimensions_give_the_same_shapes():
    named = build_student(StudentConfig(model="vit_tiny_patch16_224", image_size=32), SMALL, TEACHERS, seed=0)
    sizes = StudentConfig(model=None, image_size=32, width=192, depth=12, heads=3, patch_size=16)
    built = build_student(sizes, SMALL, TEACHERS, seed=0)
    shapes = [{n: p.shape for n, p in s.encoder.model.state_dict().items()} for s in (named, built)]
    assert shapes[0] == shapes[1]
    assert isinstance(named.encoder.model.blocks[-1].drop_path1, nn.Module) and named.num_draws == 22


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"width": 10}, "no effect beside student.model"),
        ({"model": None, "width": 8}, "depth is missing"),
        (
            {"model": None, "width": 9, "depth": 1, "heads": 2, "patch_size": 8},
            "not a multiple of student.heads",
        ),
        ({"model": None, "width": 8, "depth": 1, "heads": 2, "patch_size": 9}, "nearest: 216 or 225"),
        ({"model": None, "width": 8, "depth": 0, "heads": 2, "patch_size": 8}, "at least 1"),
        ({"drop_path": 1.0}, "drop_path"),
    ],
)
def test_a_student_that_cannot_be_built_is_explained(values: dict, words: str):
    with pytest.raises(ConfigError, match=words):
        StudentConfig(**values)


@pytest.mark.parametrize("name", ["resnet10t", "vit_base_patch16_siglip_224", "eva02_tiny_patch14_224"])
def test_a_student_must_be_a_vit_with_a_class_token(name: str):
    with pytest.raises(ConfigError, match="class token"):
        build_student(StudentConfig(model=name, image_size=224), SMALL, TEACHERS, seed=0)


@pytest.mark.parametrize("blocks", [(3,), (0, 0), (0, -3), ()])
def test_blocks_that_do_not_exist_or_come_twice_are_refused(blocks: tuple[int, ...]):
    with pytest.raises(ConfigError, match=r"ladder\.blocks"):
        student(LadderConfig(blocks=blocks))
