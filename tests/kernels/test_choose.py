"""What else makes a step fast, held to what it replaces; and whole runs, fast against plain."""

import copy
from typing import Any

import pytest
import timm
import torch
from timm.layers.mlp import Mlp, SwiGLU
from torch import nn

from unic.kernels.choose import choose_kernels, images_in_cache, unfuse_attention
from unic.kernels.frozen_weights import cast_weights, prepack_weights
from unic.method.types import Widths
from unic.models.config import LadderConfig, StudentConfig
from unic.models.student import build_student
from unic.teachers.load import load_teacher


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "test_vit4"])
def test_attention_is_the_same_in_the_plain_form(name: str):
    model = timm.create_model(name, num_classes=0).eval()
    size = model.patch_embed.img_size
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        wanted = model.forward_features(x)
        assert unfuse_attention(model) == len(model.blocks)
        assert torch.allclose(model.forward_features(x), wanted, atol=1e-5)


@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet", "test_convnext", "test_resnet"])
def test_weights_rounded_once_say_what_autocast_says(name: str):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0).eval().requires_grad_(False)
    x = torch.rand(2, 3, 160, 160)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        wanted = model.forward_features(x)
        cast_weights(model, torch.bfloat16)
        assert torch.equal(model.forward_features(x), wanted)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16, torch.float32}  # norms keep theirs


has_packed_products = pytest.mark.skipif(
    not (
        hasattr(torch.ops.mkldnn, "_reorder_linear_weight") and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    ),
    reason="oneDNN has no products in bf16 on this processor",
)


@has_packed_products
@pytest.mark.parametrize("bias", [True, False])
def test_a_packed_product_keeps_its_bits(bias: bool):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(48, 40, bias=bias)).requires_grad_(False)
    cast_weights(model, torch.bfloat16)
    strided = torch.randn(3, 48, 9).mT
    inputs = [torch.randn(2, 5, 7, 48), torch.randn(3, 48), torch.randn(48), strided]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        wanted = [model(x) for x in inputs]
        assert prepack_weights(model) == 1
        assert all(torch.equal(model(x), y) for x, y in zip(inputs[:-1], wanted[:-1], strict=True))
        assert torch.allclose(model(strided), wanted[-1], atol=2**-6)


@has_packed_products
@pytest.mark.parametrize(
    ("name", "options", "num_gelus"),
    [
        ("test_vit", {}, 6),
        ("test_vit", {"act_layer": "quick_gelu"}, 0),
        ("test_vit", {"act_layer": "gelu_tanh"}, 0),
        ("test_vit", {"mlp_layer": SwiGLU}, 0),
        ("test_convnext", {}, 0),
    ],
)
def test_packed_weights_say_the_same(name: str, options: dict[str, Any], num_gelus: int):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0, **options).eval().requires_grad_(False)
    exact = copy.deepcopy(model).double()
    x = torch.rand(2, 3, 160, 160)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        cast_weights(model, torch.bfloat16)
        rounded = model.forward_features(x)
        num_linear = sum(type(module) is nn.Linear for module in model.modules())
        assert prepack_weights(model) == num_linear
        packed = model.forward_features(x)
    mlps = [module for module in model.modules() if isinstance(module, Mlp)]
    assert sum(isinstance(mlp.act, nn.Identity) for mlp in mlps) == num_gelus
    wanted = exact.forward_features(x.double())
    if num_gelus == 0:
        assert torch.equal(packed, rounded)
    else:  # one rounding less
        assert torch.cosine_similarity(packed, rounded, dim=-1).min() > 0.9999
        assert (packed - wanted).norm() < 1.05 * (rounded - wanted).norm()


@has_packed_products
def test_a_layer_that_is_only_asked_for_its_weight_is_left_alone():
    model = nn.MultiheadAttention(16, 2).requires_grad_(False)
    cast_weights(model, torch.bfloat16)
    assert prepack_weights(model) == 0


@pytest.mark.parametrize(
    ("model", "size", "wanted"), [("vit_base_patch16_224", 224, 16), ("vit_tiny_patch16_224", 64, 735)]
)
def test_a_micro_batch_on_a_cpu_is_as_large_as_its_caches(model: str, size: int, wanted: int):
    with torch.device("meta"):
        student = build_student(
            StudentConfig(model=model, image_size=size), LadderConfig(), {"a": Widths(8, 8)}, seed=0
        )
    assert images_in_cache(student.encoder) == wanted
    for kind, device, expected in (("fast", "cpu", wanted), ("fast", "meta", None), ("exact", "cpu", None)):
        assert choose_kernels(kind, torch.device(device), None).images_at_once(student.encoder) == expected


# "meta" stands for an accelerator: its forms are built without being compiled.
@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_efficientnet"])
def test_a_frozen_teacher_leaves_the_one_it_was_made_from_as_it_was(name: str, device: str):
    exact = load_teacher(f"timm:{name}?pretrained=0&image_size=64")
    modules, weights = list(exact.modules()), {k: v.clone() for k, v in exact.state_dict().items()}
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        wanted = exact(images)
        fast = choose_kernels("fast", torch.device(device), torch.bfloat16).frozen(exact)
        assert torch.equal(exact(images).patches, wanted.patches)
        if device == "cpu":
            cosines = torch.cosine_similarity(fast(images).patches.float(), wanted.patches.float(), dim=-1)
            assert cosines.min() > 0.999
    assert list(exact.modules()) == modules
    assert all(torch.equal(weights[key], tensor) for key, tensor in exact.state_dict().items())
    assert {p.dtype for p in exact.parameters()} == {torch.float32}
    assert torch.bfloat16 in {p.dtype for p in fast.parameters()}
    assert fast.content_hash() == exact.content_hash()
    assert load_teacher(f"timm:{name}?pretrained=0&image_size=64").content_hash() == exact.content_hash()


def test_hooks_on_the_modules_of_a_fast_teacher_fire():
    exact = load_teacher("timm:test_vit?pretrained=0&image_size=64")
    fast = choose_kernels("fast", torch.device("cpu"), torch.bfloat16).frozen(exact)
    called = []
    for name, module in fast.model.named_modules():
        if name.endswith(("qkv", "fc1", "attn", "proj")):
            module.register_forward_hook(lambda *_, name=name: called.append(name))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        fast(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    depth = len(fast.model.blocks)
    assert len(called) == 1 + 4 * depth  # the patch embedding; attn, qkv, proj and fc1 of each block


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_fast_student_has_the_parameters_of_the_exact_one(device: str):
    cfg = StudentConfig(model=None, image_size=32, width=32, depth=2, heads=2, patch_size=8)
    parts = cfg, LadderConfig(hidden=16, last_hidden=16), {"a": Widths(8, 8)}
    exact = build_student(*parts, seed=3)
    fast = build_student(*parts, seed=3, kernels=choose_kernels("fast", torch.device(device), None).student)
    assert [name for name, _ in fast.named_parameters()] == [name for name, _ in exact.named_parameters()]
    assert all(torch.equal(x, y) for x, y in zip(fast.parameters(), exact.parameters(), strict=True))
    assert fast.num_draws == exact.num_draws and fast.encoder.content_hash() == exact.encoder.content_hash()
    with torch.no_grad():
        fast.encoder.model.cls_token += 1  # as training does
    assert fast.encoder.content_hash() != exact.encoder.content_hash()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_twenty_steps_have_the_losses_of_the_exact_form(losses_of_twenty_steps, precision):
    losses = {kernels: losses_of_twenty_steps(kernels, precision, "cpu") for kernels in ("exact", "fast")}
    assert len(losses["fast"]) == 20
    assert (losses["fast"] - losses["exact"]).abs().max() <= 1e-3
