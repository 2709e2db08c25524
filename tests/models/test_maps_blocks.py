"""Which blocks an encoder's maps are of, in which order, and what at_size leaves alone."""

from typing import Any

import pytest
import timm
import torch
from inputs import assert_tokens
from torch import Tensor, nn

from unic.core.errors import ConfigError
from unic.models.positions import Resampling, resample_positions
from unic.models.timm_encoder import TimmEncoder


def encoder_of(name: str, size: int, **options: Any) -> TimmEncoder:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0, **options)
    for parameter in model.parameters():
        if parameter.ndim < 2:  # fresh norms are 1 and biases 0, which would hide a forgotten norm
            nn.init.normal_(parameter, 1.0, 0.2)
    return TimmEncoder(model, name=name, image_size=size).eval().requires_grad_(False)


def pixels(height: int, width: int) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["test_vit", "test_vit4", "test_efficientnet", "test_convnext"])
@pytest.mark.parametrize("norm", [True, False])
def test_blocks_come_in_the_order_they_were_asked_for(name: str, norm: bool):
    encoder = encoder_of(name, 160)
    sized, x = encoder.at_size(64, 96), pixels(64, 96)
    depth = len(encoder.model.blocks) if "vit" in name else len(encoder.model.feature_info)
    layers = (-1, 0, -2, depth - 1, -1)
    found = sized.maps(x, layers, norm=norm)
    for layer, together in zip(layers, found, strict=True):
        (alone,) = sized.maps(x, (layer,), norm=norm)
        assert_tokens(together, alone.cls, alone.patches)


@pytest.mark.parametrize("layers", [(), (12,), (-13, -1)])
def test_a_block_that_is_not_there_is_named(layers: tuple[int, ...]):
    encoder = encoder_of("vit_tiny_patch16_224", 32, img_size=32)
    with pytest.raises(ConfigError, match="has blocks 0 to 11, or -1 to -12 from the end; asked for"):
        encoder.at_size(32, 32).maps(pixels(32, 32), layers)


def test_a_picture_of_broken_patches_is_answered_with_the_multiple():
    encoder = encoder_of("test_vit", 160)
    for size in ((160, 100), (0, 160), (8, 160)):
        with pytest.raises(
            ConfigError, match=r"in patches of 16 pixels, got .*; pad both sides to multiples of 16"
        ):
            encoder.at_size(*size)


def test_the_last_map_of_a_pooled_vit_has_what_classifies_as_cls():
    encoder = encoder_of("test_vit2", 160)  # attention pooling, no class token
    sized, x = encoder.at_size(96, 64), pixels(96, 64)
    last, inner = sized.maps(x, (-1, -2))
    features = sized.model.forward_features(x)
    torch.testing.assert_close(last.cls, sized.model.forward_head(features, pre_logits=True))
    torch.testing.assert_close(inner.cls, inner.patches.mean((2, 3)))


def test_a_size_after_a_size_is_taken_from_the_encoder_itself():
    """4 x 9 patches are also 6 x 6: a second resampling would take one for the other."""
    encoder = encoder_of("test_vit", 160)
    again = encoder.at_size(64, 144).at_size(160, 96)
    assert again.content_hash() == encoder.at_size(160, 96).content_hash()
    assert encoder.at_size(64, 144).at_size(160, 160).model.pos_embed.equal(encoder.model.pos_embed)


def test_positions_are_resampled_as_the_family_does():
    encoder = encoder_of("test_vit", 160)
    plain = encoder.at_size(96, 128)
    how = Resampling(antialias=False, offset=0.1)
    encoder.positions = (encoder.model.pos_embed, how)
    found = encoder.at_size(96, 128)
    expected = resample_positions(encoder.model.pos_embed, 6, 8, num_prefix=1, how=how)
    assert found.model.pos_embed.equal(expected)
    assert not plain.model.pos_embed.equal(expected) and plain.content_hash() != found.content_hash()


def test_what_is_read_at_a_layer_keeps_that_layer():
    torch.manual_seed(0)
    encoder = TimmEncoder(
        timm.create_model("test_vit", num_classes=0), name="vit", image_size=160, layer=-2
    ).eval()
    x = pixels(64, 96)
    (found,) = encoder.at_size(64, 96).maps(x)
    (expected,) = encoder.at_size(64, 96).blocks(x, [-2], norm=True)
    assert found.patches.flatten(2).transpose(1, 2).equal(expected.patches)
    with pytest.raises(ConfigError, match="last block and final norm only"):
        encoder.at_size(64, 96).maps(x, (-1, -3))


def test_positions_are_of_the_same_type_and_stay_frozen_or_trainable():
    encoder = encoder_of("test_vit", 160)
    assert not encoder.at_size(64, 96).model.pos_embed.requires_grad
    assert encoder.half().at_size(64, 96).model.pos_embed.dtype == torch.float16


def test_a_vit_that_does_not_hand_out_its_class_token_is_read_at_its_end():
    encoder = encoder_of("xcit_nano_12_p16_224", 64)
    x = pixels(64, 96)
    (found,) = encoder.at_size(64, 96).maps(x)
    features = encoder.model.forward_features(x)
    torch.testing.assert_close(found.patches.flatten(2).transpose(1, 2), features[:, 1:])
    with pytest.raises(ConfigError, match="last block and final norm only"):
        encoder.at_size(64, 96).maps(x, (-2, -1))


def test_a_model_with_rotary_positions_changes_its_size():
    encoder = encoder_of("vit_small_patch16_dinov3", 64, img_size=64, depth=2)
    x = pixels(64, 96)
    dynamic = encoder_of("vit_small_patch16_dinov3", 64, img_size=64, depth=2, dynamic_img_size=True)
    found = encoder.at_size(64, 96).maps(x)[0]
    torch.testing.assert_close(found.patches, dynamic.maps(x)[0].patches, atol=1e-5, rtol=1e-5)


def test_a_size_that_a_model_refuses_is_a_sentence():
    encoder = encoder_of("mixer_s32_224", 224)
    with pytest.raises(ConfigError, match=r"mixer_s32_224 cannot read pictures of 224 x 256 pixels"):
        encoder.at_size(224, 256).maps(pixels(224, 256))
