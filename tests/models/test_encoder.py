"""Encoders against timm's own forward, for the families a user may name."""

from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from inputs import assert_tokens, normalised, random_images

from unic.core.errors import ConfigError
from unic.models.timm_encoder import TimmEncoder, create_timm

# name, image size: class token; registers; no class token and attention pooling; average pooling; CNN; NHWC maps.
MODELS = [
    ("vit_tiny_patch16_224", 48),
    ("vit_small_patch14_reg4_dinov2", 56),
    ("vit_base_patch16_siglip_224", 32),
    ("eva02_tiny_patch14_224", 56),
    ("tf_efficientnet_lite0", 64),
    ("resnet10t", 64),
    ("mobilenetv3_small_050", 64),
    ("convnext_atto", 64),
    ("swin_tiny_patch4_window7_224", 224),
]


@pytest.mark.parametrize(("name", "size"), MODELS)
def test_tokens_equal_timms_own_forward(name: str, size: int):
    model = create_timm(name, image_size=size).eval()
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.1)
    encoder = TimmEncoder(model, name=name, image_size=size, mean=mean, std=std).eval()
    x = random_images(size)
    with torch.no_grad():
        tokens = encoder(x)
        features = model.forward_features(normalised(x, mean, std))
        pooled = model.forward_head(features, pre_logits=True)
    if features.ndim == 4:
        nchw = features.permute(0, 3, 1, 2) if name.startswith("swin") else features
        expected = torch.stack(
            [nchw[:, :, i, j] for i in range(nchw.shape[2]) for j in range(nchw.shape[3])], dim=1
        )
    else:
        expected = features[:, model.num_prefix_tokens :]
    cls = features[:, 0] if getattr(model, "global_pool", "") == "token" else pooled
    # The same operations in another memory layout: a few float32 roundings.
    assert_tokens(tokens, cls, expected, rtol=1e-4, atol=1e-5)
    assert tokens.cls.shape == (2, encoder.dim) and tokens.patches.shape[2] == encoder.patch_dim
    assert tokens.patches.shape[1] == encoder.grid[0] * encoder.grid[1]
    assert encoder.patch_size == size // encoder.grid[0]


def test_block_outputs_are_the_residual_stream_before_the_final_norm():
    model = create_timm("vit_tiny_patch16_224", image_size=32).eval()
    encoder = TimmEncoder(model, name="vit", image_size=32).eval()
    seen = []
    hooks = [block.register_forward_hook(lambda _m, _i, out: seen.append(out)) for block in model.blocks]
    with torch.no_grad():
        blocks = encoder.block_outputs(random_images(32))
        final = encoder(random_images(32))
    for hook in hooks:
        hook.remove()
    assert len(blocks) == 12
    for tokens, stream in zip(blocks, seen, strict=False):
        assert torch.equal(tokens.cls, stream[:, 0]) and torch.equal(tokens.patches, stream[:, 1:])
    torch.testing.assert_close(model.norm(blocks[-1].cls), final.cls)


def test_images_of_another_size_are_resized_and_pixels_may_be_floats():
    encoder = TimmEncoder(create_timm("resnet10t"), name="cnn", image_size=64).eval()
    x = random_images(80)
    with torch.no_grad():
        resized = F.interpolate(x / 255, (64, 64), mode="bicubic", antialias=True).clamp(0, 1)
        torch.testing.assert_close(encoder(x).cls, encoder(resized).cls)
        torch.testing.assert_close(encoder(random_images(64)).cls, encoder(random_images(64) / 255).cls)


def test_patches_can_come_from_an_earlier_stage_of_a_cnn():
    model = create_timm("resnet10t").eval()
    encoder = TimmEncoder(model, name="cnn", image_size=64, layer=-2).eval()
    with torch.no_grad():
        tokens = encoder(random_images(64))
        x = encoder.prepare(random_images(64))
        stage = model.layer3(model.layer2(model.layer1(model.maxpool(model.act1(model.bn1(model.conv1(x)))))))
    torch.testing.assert_close(tokens.patches, stage.flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-5)
    assert (encoder.dim, encoder.patch_dim) == (512, 256)


@pytest.mark.parametrize("size", [33, 47, 7])
def test_an_image_size_that_is_no_multiple_of_the_patch_names_the_nearest(size: int):
    with pytest.raises(ConfigError, match="multiple of the patch size 16; nearest"):
        TimmEncoder(create_timm("vit_tiny_patch16_224", image_size=size), name="vit", image_size=size)


def test_an_unknown_model_names_the_nearest():
    with pytest.raises(ConfigError, match="vit_tiny_patch16_224"):
        create_timm("vit_tini_patch16_224")


def test_a_token_is_not_made_up_for_models_without_one():
    with pytest.raises(ConfigError, match="no class token"):
        TimmEncoder(create_timm("resnet10t"), name="cnn", image_size=64, cls="token")


def test_a_model_without_patch_tokens_is_refused():
    with pytest.raises(ConfigError, match="no patch tokens"):
        TimmEncoder(create_timm("pit_ti_224"), name="pit", image_size=224)


@pytest.mark.parametrize("std", [(1.0, 1.0, 0.0), (1.0,), (1.0, float("nan"), 1.0)])
def test_a_std_that_cannot_be_divided_by_is_refused(std: tuple[float, ...]):
    with pytest.raises(ConfigError, match="mean and std must be three numbers"):
        TimmEncoder(create_timm("resnet10t"), name="cnn", image_size=64, std=std)


def test_a_model_with_undefined_weights_is_refused():
    model = create_timm("resnet10t")
    next(model.parameters()).data[:] = float("nan")
    with pytest.raises(ConfigError, match="infinite or undefined features"):
        TimmEncoder(model, name="cnn", image_size=64)


def test_the_fingerprint_follows_the_weights():
    def encoder() -> TimmEncoder:
        torch.manual_seed(0)
        return TimmEncoder(timm.create_model("resnet10t", num_classes=0), name="cnn", image_size=64)

    first, changed = encoder(), encoder()
    assert first.content_hash() == changed.content_hash()
    with torch.no_grad():
        next(changed.parameters())[0, 0, 0, 0] += 1e-4
    assert first.content_hash() != changed.content_hash()


def test_measuring_a_model_leaves_its_modes_and_batch_norm_alone():
    model = create_timm("resnet10t").train()
    model.layer1.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    TimmEncoder(model, name="cnn", image_size=64)
    assert model.training and not model.layer1.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("change", [{"std": (0.2, 0.2, 0.3)}, {"mean": (0.1, 0.0, 0.0)}, {"image_size": 64}])
def test_the_fingerprint_tells_preprocessing_apart(change: dict[str, Any]):
    torch.manual_seed(0)
    model = create_timm("test_vit", image_size=32)
    facts: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (0.2, 0.2, 0.2), "image_size": 32}
    plain = TimmEncoder(model, name="a", **facts).content_hash()
    assert TimmEncoder(model, name="another name", **facts).content_hash() == plain
    if "image_size" in change:
        model = create_timm("test_vit", image_size=64)
    assert TimmEncoder(model, name="a", **{**facts, **change}).content_hash() != plain
