"""What else makes a step fast, held to what it replaces; and whole runs, fast against plain."""

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch

from unic.fast.attention import unfuse_attention
from unic.fast.hasten import images_at_once
from unic.fast.teachers import round_weights
from unic.models.ladder import LadderConfig
from unic.models.student import StudentConfig, build_student
from unic.recipes import debug
from unic.run import RunDir
from unic.tokens import Widths
from unic.train.loop import train


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
        round_weights(model, torch.bfloat16)
        assert torch.equal(model.forward_features(x), wanted)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16, torch.float32}  # norms keep theirs


@pytest.mark.parametrize(
    ("model", "size", "wanted"), [("vit_base_patch16_224", 224, 8), ("vit_tiny_patch16_224", 64, 383)]
)
def test_a_micro_batch_on_a_cpu_is_as_large_as_its_caches(model: str, size: int, wanted: int):
    with torch.device("meta"):
        student = build_student(
            StudentConfig(model=model, image_size=size), LadderConfig(), {"a": Widths(8, 8)}, seed=0
        )
    assert images_at_once(student, torch.device("cpu")) == wanted
    assert images_at_once(student, torch.device("cuda")) is None


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_twenty_steps_have_the_losses_of_the_plain_form(photos: Path, precision, tmp_path: Path):
    """Drop path, teacher dropping and two unlike teachers included."""
    base = debug()
    losses = {}
    for kernels in ("plain", "fast"):
        recipe = replace(
            base,
            teachers=tuple(f"timm:{n}?pretrained=0&image_size=32" for n in ("test_convnext", "test_vit")),
            data=replace(base.data, root=(str(photos),)),
            optim=replace(base.optim, batch_size=6, epochs=5.0, warmup_epochs=1.0, lr=3e-3),
            log=replace(base.log, every=1, fidelity_every=None),
            speed=replace(base.speed, workers=0, precision=precision, kernels=kernels),
        )
        run = tmp_path / kernels
        assert train(recipe, run, torch.device("cpu"))
        losses[kernels] = torch.tensor([line["loss"] for line in RunDir(run).read("metrics.jsonl")])
    assert len(losses["fast"]) == 20
    assert (losses["fast"] - losses["plain"]).abs().max() <= 1e-3
