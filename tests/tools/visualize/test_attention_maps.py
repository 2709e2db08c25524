"""The attention of the class token, against the networks' own slow ways and against float64 by hand."""

import pytest
import timm
import torch
from layouts import randomised
from tiny import CPU, cnn_encoder, picture, vit, vit_encoder
from torch import nn

from unic.models.timm_encoder import TimmEncoder
from unic.tools.visualize.attention_maps import (
    HIDDEN,
    NO_ATTENTION,
    NO_CLASS_TOKEN,
    AttentionWatch,
    attention_maps,
    attention_of_first,
)
from unic.tools.visualize.extract import NamedEncoder, extract_maps

VITS = {
    "plain": {},
    "norms of q and k": {"qk_norm": True},
    "registers": {"reg_tokens": 4},
    "norm before, layer-scale": {"pre_norm": True, "init_values": 0.1},
}


def pixels(size: int = 32) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def watched(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad(), AttentionWatch(len(x)) as watch:
        model(x)
    assert watch.last is not None
    return watch.last


def unfused(model: nn.Module, last: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What the last block's softmax gives to its dropout when attention is written out."""
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False  # pyright: ignore[reportArgumentType]
    kept: list[torch.Tensor] = []
    last.attn_drop.register_forward_hook(lambda _, inputs, output: kept.append(output))
    with torch.no_grad():
        model(x)
    return kept[0][:, :, 0]


@pytest.mark.parametrize("options", VITS.values(), ids=VITS.keys())
def test_it_is_what_the_block_computes_when_it_is_not_fused(options: dict):
    model = vit(**options)
    found = watched(model, pixels())
    expected = unfused(model, model.blocks[-1].attn, pixels())
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 3))


@pytest.mark.parametrize("options", VITS.values(), ids=VITS.keys())
def test_it_is_the_softmax_by_hand_in_float64(options: dict):
    model = vit(**options)
    found = watched(model, pixels())
    model = model.double()
    with torch.no_grad():
        x = model.norm_pre(model._pos_embed(model.patch_embed(pixels().double())))
        x = model.blocks[-1].norm1(model.blocks[0](x))
    attn = model.blocks[-1].attn
    weight, bias = attn.qkv.weight, attn.qkv.bias
    for image in range(2):
        for head in range(3):
            q, k = (
                x[image] @ weight[at : at + 8].T + bias[at : at + 8] for at in (8 * head, 24 + 8 * head)
            )  # heads of width 8
            q, k = attn.q_norm(q), attn.k_norm(k)
            logits = k @ q[0] / 8**0.5
            expected = (logits - logits.max()).exp()
            torch.testing.assert_close(
                found[image, head].double(), expected / expected.sum(), atol=1e-6, rtol=1e-4
            )


def test_rotary_positions_are_in_it():
    model = randomised(
        timm.models.eva.Eva(
            img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3, num_classes=0, use_rot_pos_emb=True,
            use_abs_pos_emb=False, num_reg_tokens=2,
        )
    )  # fmt: skip
    found = watched(model, pixels())
    assert found.shape == (2, 3, 19)
    torch.testing.assert_close(found, unfused(model, model.blocks[-1].attn, pixels()), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("family", ["Dinov2WithRegisters", "DINOv3ViT", "CLIPVision"])
def test_it_is_what_transformers_gives_for_its_own_models(family: str):
    transformers = pytest.importorskip("transformers")
    registers = {} if family == "CLIPVision" else {"num_register_tokens": 3}
    config = getattr(transformers, f"{family}Config")(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=32,
        patch_size=8, **registers,
    )  # fmt: skip
    model = randomised(getattr(transformers, f"{family}Model")(config))
    found = watched(model, pixels())
    model.set_attn_implementation("eager")
    with torch.no_grad():
        expected = model(pixels(), output_attentions=True).attentions[-1][:, :, 0]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_it_is_what_torchs_own_attention_says_and_leaves_its_output_alone():
    attention = randomised(nn.MultiheadAttention(24, 3, batch_first=True))
    x = torch.randn(2, 10, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain, nothing = attention(x, x, x, need_weights=False)
        _, weights = attention(x, x, x, average_attn_weights=False)
        with AttentionWatch(2) as watch:
            output, still_nothing = attention(x, x, x, need_weights=False)
            _, mean = attention(x, x, x)
            attention(x[:, :1], x, x)  # a pooler: not the attention of the class token
    assert nothing is None and still_nothing is None and watch.last is not None
    torch.testing.assert_close(output, plain, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(mean, weights.mean(1))
    torch.testing.assert_close(watch.last, weights[:, :, 0])


def test_masks_scales_and_shared_keys_are_followed():
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, heads, 7, 8, generator=generator) for heads in (4, 2, 2))
    eye = torch.eye(7).expand(2, 2, 7, 7)  # as values: the output is the attention itself
    forbidden = torch.ones(7, 7, dtype=torch.bool)
    forbidden[0, 3] = False
    for options in (
        {"scale": 0.7},
        {"attn_mask": torch.randn(7, 7, generator=generator)},
        {"attn_mask": forbidden},
    ):
        expected = nn.functional.scaled_dot_product_attention(q, k, eye, enable_gqa=True, **options)[:, :, 0]
        found = attention_of_first(q, k, v, enable_gqa=True, **options)
        assert found is not None
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("options", "prefix"), [({}, 1), ({"reg_tokens": 4}, 5)])
def test_patches_of_the_map_are_those_after_class_and_registers(options: dict, prefix: int):
    encoder = vit_encoder(**options)
    found = extract_maps(
        NamedEncoder(encoder, "tiny"), [picture()], image_size=48, attention=True, device=CPU
    )
    assert isinstance(found.attention, torch.Tensor) and found.attention.shape == (1, 3, 6, 6)
    sized = encoder.at_size(48, 48)
    from unic.data.crop import evaluation_view

    x = sized.normalize(evaluation_view(picture(), 48)[None])
    expected = unfused(sized.model, sized.model.blocks[-1].attn, x)
    torch.testing.assert_close(found.attention.flatten(2), expected[..., prefix:], atol=1e-6, rtol=1e-5)


def test_it_is_read_where_the_user_switched_fused_attention_off_and_the_encoder_stays_as_it_was():
    encoder = vit_encoder()
    for block in encoder.model.blocks:
        block.attn.fused_attn = False
    found = extract_maps(
        NamedEncoder(encoder, "tiny"), [picture()], image_size=32, attention=True, device=CPU
    )
    assert isinstance(found.attention, torch.Tensor)
    assert not any(block.attn.fused_attn for block in encoder.model.blocks)


def test_the_reason_is_given_where_there_is_none():
    def reason(encoder: TimmEncoder) -> object:
        return extract_maps(
            NamedEncoder(encoder, "x"), [picture()], image_size=None, attention=True, device=CPU
        ).attention

    assert reason(cnn_encoder()) == NO_ATTENTION
    assert reason(vit_encoder(class_token=False, global_pool="avg")) == NO_CLASS_TOKEN
    # its first token is a register
    assert reason(vit_encoder(class_token=False, reg_tokens=2, global_pool="avg")) == NO_CLASS_TOKEN
    assert attention_maps(None, (4, 4), vit()) == HIDDEN
