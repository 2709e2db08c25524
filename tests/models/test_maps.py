"""Encoders at other sizes than they were built for, against timm's and transformers' own ways."""

import copy
from typing import Any

import pytest
import timm
import torch
from inputs import assert_tokens, random_images
from torch import nn

from unic.core.errors import ConfigError
from unic.evals.dense.frozen_backbone import centre_padded
from unic.method.types import Tokens
from unic.models.encoder import ImageEncoder
from unic.models.positions import Resampling, positions_of, resample_positions
from unic.models.share_weights import share_weights
from unic.models.timm_encoder import TimmEncoder

SIZES = [(32, 32), (48, 80), (16, 64)]


def vit(**options: Any) -> Any:
    torch.manual_seed(0)
    choices = {"embed_dim": 24, "depth": 5, "num_heads": 2, "num_classes": 0, "img_size": 32, "patch_size": 8}
    model = timm.models.VisionTransformer(**{**choices, **options}).eval()
    nn.init.normal_(model.pos_embed)
    return model


def encoder_of(model: Any, size: int = 32, **options: Any) -> TimmEncoder:
    return TimmEncoder(model, name="tiny", image_size=size, **options).eval().requires_grad_(False)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reg_tokens": 4},
        {"reg_tokens": 2, "no_embed_class": True},
        {"pre_norm": True, "init_values": 0.1},
    ],
    ids=["plain", "registers", "positions of patches only", "norm before, layer-scale"],
)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_vit_of_another_size_is_that_of_timm_with_dynamic_size(options: dict, height: int, width: int):
    model = vit(**options)
    encoder = encoder_of(model)
    dynamic = vit(**options, dynamic_img_size=True)
    dynamic.load_state_dict(model.state_dict())
    pixels = encoder.normalize(random_images(height, width))
    found = encoder.at_size(height, width).maps(pixels, (1, -1))
    expected = dynamic.get_intermediate_layers(
        pixels, [1, 4], reshape=True, return_prefix_tokens=True, norm=True
    )
    for ours, (patches, prefix) in zip(found, expected, strict=True):
        assert_tokens(ours, prefix[:, 0], patches, atol=1e-5, rtol=1e-5)


def test_without_the_norm_blocks_are_read_as_they_are():
    model = vit()
    nn.init.normal_(model.norm.weight)
    encoder = encoder_of(model)
    pixels = encoder.normalize(random_images(32, 32))
    sized = encoder.at_size(32, 32)
    before, after = (sized.maps(pixels, norm=norm)[0].patches for norm in (False, True))
    torch.testing.assert_close(
        model.norm(before.flatten(2).transpose(1, 2)), after.flatten(2).transpose(1, 2)
    )
    assert not torch.allclose(before, after)


def test_maps_at_the_encoders_own_size_are_its_tokens():
    encoder = encoder_of(vit())
    images = random_images(32, 32)
    tokens = encoder(images)
    (found,) = encoder.at_size(32, 32).maps(encoder.normalize(images))
    torch.testing.assert_close(found.cls, tokens.cls)
    torch.testing.assert_close(found.patches.flatten(2).transpose(1, 2), tokens.patches)


def test_weights_are_shared_and_the_encoder_stays_as_it_was():
    encoder = encoder_of(vit())
    images, print_before = random_images(32, 32), encoder.content_hash()
    before = encoder(images)
    resized = encoder.at_size(48, 80)
    own = dict(encoder.named_parameters())
    for name, tensor in resized.named_parameters():
        assert (tensor.data_ptr() == own[name].data_ptr()) is (name != "model.pos_embed"), name
    assert torch.equal(encoder(images).patches, before.patches)
    assert encoder.content_hash() == print_before
    prints = {encoder.at_size(*size).content_hash() for size in ((48, 80), (80, 48), (32, 32))}
    assert len({print_before, *prints}) == 4
    assert resized.content_hash() == encoder.at_size(48, 80).content_hash()
    assert (resized.name, resized.dim) == (encoder.name, encoder.dim)


def test_modes_of_the_encoder_are_left_alone():
    model = timm.create_model("test_efficientnet", num_classes=0)
    encoder = TimmEncoder(model, name="cnn", image_size=64).train()
    encoder.at_size(64, 96).eval()
    assert all(module.training for module in encoder.modules())


def test_positions_come_from_the_grid_of_the_file_and_are_resampled_once():
    native = vit(img_size=64)
    small = vit(img_size=32)
    state = {
        **native.state_dict(),
        "pos_embed": resample_positions(native.pos_embed.detach(), 4, 4, num_prefix=1, how=Resampling()),
    }
    small.load_state_dict(state)
    encoder = encoder_of(small)
    encoder.positions = positions_of(native.state_dict(), Resampling())
    large = encoder_of(native, 64)
    pixels = encoder.normalize(random_images(64, 64))
    torch.testing.assert_close(
        encoder.at_size(64, 64).maps(pixels)[0].patches, large.at_size(64, 64).maps(pixels)[0].patches
    )


@pytest.mark.parametrize(("rows", "columns"), [(4, 4), (5, 9), (12, 3)])
def test_positions_are_resampled_along_both_axes_as_dino_does(rows: int, columns: int):
    """A cubic kernel in float64, at a scale of (rows + 0.1) / side for the rows and likewise for the columns."""
    side, positions = 4, torch.randn(1, 17, 3, dtype=torch.float64)
    how = Resampling(antialias=False, offset=0.1)
    found = resample_positions(positions, rows, columns, num_prefix=1, how=how)
    if rows == columns == side:
        assert found is positions
        return

    def weights(out: int) -> torch.Tensor:
        table = torch.zeros(out, side, dtype=torch.float64)
        for i in range(out):
            place = (i + 0.5) * side / (out + 0.1) - 0.5
            base = int(place // 1)
            for j in range(base - 1, base + 3):
                x = abs(place - j)
                a = -0.75
                w = (
                    (a + 2) * x**3 - (a + 3) * x**2 + 1
                    if x <= 1
                    else a * (x**3 - 5 * x**2 + 8 * x - 4)
                    if x < 2
                    else 0
                )
                table[i, min(max(j, 0), side - 1)] += w
        return table

    grid = positions[0, 1:].unflatten(0, (side, side))
    expected = torch.einsum("ri,cj,ijd->rcd", weights(rows), weights(columns), grid)
    torch.testing.assert_close(found[0, 1:].double(), expected.flatten(0, 1), atol=1e-5, rtol=1e-5)
    assert torch.equal(found[0, 0], positions[0, 0])


def test_a_cnn_gives_its_last_map_and_earlier_ones():
    torch.manual_seed(0)
    model = timm.create_model("test_efficientnet", num_classes=0).eval()
    encoder = encoder_of(model, 64)
    pixels = encoder.normalize(random_images(96, 128))
    last, inner = encoder.at_size(96, 128).maps(pixels)[0], encoder.at_size(96, 128).maps(pixels, (-3, -2))
    features = model.forward_features(pixels)
    assert_tokens(last, model.forward_head(features, pre_logits=True), features)
    stages = model.forward_intermediates(pixels, indices=[-3, -2], intermediates_only=True)
    for ours, stage in zip(inner, stages, strict=True):
        assert_tokens(ours, stage.mean((2, 3)), stage)
    assert encoder.stride == 32


def test_a_net_with_windows_changes_its_size_in_timms_way():
    torch.manual_seed(0)
    options = {
        "embed_dim": 8,
        "depths": (1, 1),
        "num_heads": (1, 1),
        "window_size": 4,
        "patch_size": 4,
        "num_classes": 0,
    }
    model = timm.models.SwinTransformer(img_size=32, **options).eval()
    encoder = encoder_of(model)
    pixels = encoder.normalize(random_images(32, 64))
    found = encoder.at_size(32, 64).maps(pixels)[0]
    other = copy.deepcopy(model)
    other.set_input_size((32, 64))
    expected = other.forward_features(pixels).permute(0, 3, 1, 2)  # (B, h, w, D) -> (B, D, h, w)
    torch.testing.assert_close(found.patches, expected, atol=1e-5, rtol=1e-5)
    assert model.patch_embed.img_size == (32, 32)


def test_padding_is_centred_and_the_odd_pixel_is_at_the_end():
    padded = centre_padded(torch.ones(1, 3, 9, 12), 14)
    assert padded.shape == (1, 3, 14, 14)
    assert padded.sum() == 3 * 9 * 12
    assert (padded[..., 2:11, 1:13] == 1).all()  # 5 rows: 2 above, 3 below; 2 columns: 1 and 1
    image = torch.rand(1, 3, 28, 14)
    assert torch.equal(centre_padded(image, 14), image)
    assert centre_padded(torch.zeros(1, 3, 512, 512), 14).shape[-2:] == (518, 518)


def test_a_copy_that_shares_weights_can_have_one_replaced():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    copy = share_weights(model)
    assert copy[0].weight is model[0].weight and copy[1].running_mean is model[1].running_mean
    copy[0].weight = nn.Parameter(torch.zeros(2, 2))
    assert model[0].weight.any()


class Fixed(nn.Module):
    """Reads squares of 8 pixels only."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[-1] != 8:
            raise RuntimeError(f"size {x.shape[-1]}\nand more")
        return nn.functional.avg_pool2d(x, 4).flatten(2).transpose(1, 2) @ self.weight.T


class FixedEncoder(ImageEncoder):
    def __init__(self):
        super().__init__(Fixed(), name="fixed", image_size=8)
        self.measure()

    def tokens(self, pixels: torch.Tensor) -> Tokens:
        patches = self.model(pixels)
        return Tokens(patches.mean(1), patches)


def test_a_network_of_one_size_says_so():
    encoder = FixedEncoder()
    assert encoder.at_size(8, 8).maps(torch.rand(1, 3, 8, 8))[0].patches.shape == (1, 4, 2, 2)
    with pytest.raises(
        ConfigError, match=r"fixed cannot read pictures of 8 x 16 pixels; its own size is 8 \(size 16\)"
    ):
        encoder.at_size(8, 16).maps(torch.rand(1, 3, 8, 16))


@pytest.mark.parametrize(("layers", "norm"), [((-2, -1), True), ((-1,), False)])
def test_an_encoder_that_can_be_read_at_its_end_only_says_so(layers, norm):
    with pytest.raises(ConfigError, match="can be read after its last block and final norm only"):
        FixedEncoder().maps(torch.rand(1, 3, 8, 8), layers, norm=norm)


def test_a_dinov2_of_transformers_is_that_librarys_own_at_another_size(tmp_path):
    transformers = pytest.importorskip("transformers")
    from unic.teachers.load import load_teacher

    torch.manual_seed(0)
    config = transformers.Dinov2WithRegistersConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=28,
        patch_size=7,
        num_register_tokens=3,
    )
    model = transformers.Dinov2WithRegistersModel(config).eval()
    nn.init.normal_(model.embeddings.position_embeddings)
    model.save_pretrained(tmp_path)
    encoder = load_teacher(f"hf:{tmp_path}?image_size=28")
    pixels = encoder.normalize(random_images(35, 56))
    (found,) = encoder.at_size(35, 56).maps(pixels)
    expected = model(pixels).last_hidden_state
    torch.testing.assert_close(found.cls, expected[:, 0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        found.patches.flatten(2).transpose(1, 2), expected[:, 4:], atol=1e-5, rtol=1e-5
    )
