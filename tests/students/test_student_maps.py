"""Maps of students: positions as the file's family resamples them, and heads at another size."""

from pathlib import Path

import layouts
import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from unic.models.config import StudentConfig
from unic.models.positions import Resampling, resample_positions
from unic.models.student import build_encoder, read_encoder, write_encoder
from unic.models.timm_encoder import TimmEncoder
from unic.students.foreign_formats import read_published
from unic.students.import_student import import_student
from unic.students.load_encoder import load, read_student

DINOV2_PLAIN = Resampling(antialias=False, offset=0.1)
PLAIN = StudentConfig(model=None, image_size=64, width=64, depth=2, heads=1, patch_size=16)


def assert_resampled(
    encoder: TimmEncoder, native: torch.Tensor, how: Resampling, num_prefix: int = 1
) -> None:
    p = encoder.patch_size
    expected = resample_positions(native, 3, 5, num_prefix=num_prefix, how=how)
    assert encoder.at_size(3 * p, 5 * p).model.pos_embed.equal(expected)


def test_a_published_student_is_resampled_as_dinov2s_vit_also_as_a_run(
    unic_pth: Path, model: VisionTransformer, tmp_path: Path
):
    assert_resampled(read_published(unic_pth).encoder, model.pos_embed, DINOV2_PLAIN)
    assert_resampled(import_student(unic_pth, tmp_path / "run").encoder, model.pos_embed, DINOV2_PLAIN)


@pytest.mark.parametrize("registers", ["", "_reg4"])
def test_a_dinov2_is_resampled_as_its_hub_does_also_as_a_run(tmp_path: Path, registers: str):
    name = f"vit_small_patch14{registers}_dinov2"
    model = layouts.randomised(timm.create_model(name, num_classes=0, img_size=56))
    torch.save(layouts.dinov2_names(model), tmp_path / "dinov2.pth")
    how = Resampling() if registers else DINOV2_PLAIN
    for student in (
        read_student(tmp_path / "dinov2.pth"),
        import_student(tmp_path / "dinov2.pth", tmp_path / "run"),
    ):
        assert_resampled(student.encoder, model.pos_embed, how, num_prefix=0 if registers else 1)


def test_our_own_student_is_resampled_from_the_grid_it_learned_on(tmp_path: Path):
    encoder = build_encoder(PLAIN, seed=0)
    write_encoder(tmp_path / "encoder.safetensors", PLAIN, encoder)
    small = read_encoder(tmp_path / "encoder.safetensors", image_size=32)
    assert small is not None
    assert_resampled(small, encoder.model.pos_embed, Resampling())
    assert small.at_size(64, 64).model.pos_embed.equal(encoder.model.pos_embed)


def test_a_head_at_another_size_is_the_ladder_on_the_encoder_at_that_size(unic_pth: Path):
    student = read_student(unic_pth)
    teacher = next(iter(student.standardizers))
    head = student.head(teacher)
    p = head.stride
    x = torch.randn(2, 3, 2 * p, 3 * p, generator=torch.Generator().manual_seed(0))
    before, images = head.content_hash(), torch.zeros(1, 3, p, p, dtype=torch.uint8)
    tokens = head(images)
    (found,) = head.at_size(2 * p, 3 * p).maps(x)
    assert student.ladder is not None
    blocks = student.encoder.at_size(2 * p, 3 * p).blocks(x)
    expected = student.standardizers[teacher].inverse(student.ladder(blocks)[teacher])
    torch.testing.assert_close(found.cls, expected.cls)
    torch.testing.assert_close(found.patches.flatten(2).transpose(1, 2), expected.patches)
    assert head.content_hash() == before != head.at_size(2 * p, 3 * p).content_hash()
    assert head(images).patches.equal(tokens.patches)


def test_no_weight_of_a_head_is_there_twice(unic_pth: Path):
    student = read_student(unic_pth)
    head = load(unic_pth, head=next(iter(student.standardizers)))
    p = head.stride
    sized = head.at_size(p, 2 * p)
    own = {tensor.data_ptr() for tensor in (*head.parameters(), *head.buffers())}
    new = {name for name, tensor in sized.named_parameters() if tensor.data_ptr() not in own}
    assert new == {"model.encoder.model.pos_embed"}
    assert {tensor.data_ptr() for tensor in sized.buffers()} <= own
