"""The forms for accelerators, held to the definitions: compiled where there is an accelerator, and most of them also
uncompiled, as the functions stand, on a CPU.
"""

import contextlib
import copy
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jaxtyping
import pytest
import timm
import torch
import torch.nn.functional as F
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from unic.core import torch_compile
from unic.data.color_jitter.exact import color_jitter
from unic.data.color_jitter.gpu import color_jitter_gpu
from unic.data.config import ViewConfig
from unic.data.photometric import photometric_parameters
from unic.kernels.choose import choose_kernels, compile_vits
from unic.kernels.gelu import FastGelu, fast_gelu, replace_gelu
from unic.kernels.ladder_gpu import sums_of_mlps
from unic.kernels.patch_embed import replace_patch_embed
from unic.kernels.split_tokens import split_block_outputs
from unic.kernels.token_loss import fast_token_loss
from unic.method.config import LossConfig, StatisticsConfig
from unic.method.losses import token_loss
from unic.method.standardize import Moments, Standardizer
from unic.method.types import Tokens, Widths
from unic.models.config import LadderConfig, StudentConfig
from unic.models.ladder import Mlp
from unic.models.student import EXACT, Student, StudentKernels, build_encoder, build_student
from unic.recipes import debug
from unic.tools.bench.timed_step import TimedStep

ACCELERATOR = torch.accelerator.current_accelerator(check_available=True)
needs_accelerator = pytest.mark.skipif(ACCELERATOR is None, reason="needs an accelerator")
DEVICES = ["cpu", pytest.param("accelerator", marks=[pytest.mark.gpu, needs_accelerator])]


@contextlib.contextmanager
def uncompilable_checks_off() -> Iterator[None]:
    """The checks of shapes that this test run has in every function are nothing that torch can compile."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def as_a_user_has_it() -> Iterator[None]:
    with uncompilable_checks_off():
        yield


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """A CPU on which nothing is compiled; an accelerator on which it is, without TF32."""
    if request.param == "accelerator":
        assert ACCELERATOR is not None
        with uncompilable_checks_off():
            yield ACCELERATOR
        return
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    torch_compile._compiled.cache_clear()
    yield torch.device("cpu")
    torch_compile._compiled.cache_clear()


def close(found: Tensor, wanted: Tensor, tolerance: float) -> bool:
    """Within a share of the largest number."""
    return bool((found - wanted).abs().max() <= tolerance * wanted.abs().max().clamp(min=1e-6))


def mlps_of(device: torch.device, widths: tuple[int, ...], hidden: tuple[int, ...]) -> list[list[Mlp]]:
    torch.manual_seed(0)
    found = [[Mlp(16, h, width).to(device) for h in hidden] for width in widths]
    for parameter in itertools.chain(*(mlp.parameters() for of_teacher in found for mlp in of_teacher)):
        nn.init.normal_(parameter, std=0.3)
    return found


def run_mlps(
    sums: Callable[..., Any],
    mlps: list[list[Mlp]],
    device: torch.device,
    dtype: torch.dtype,
    dropped: set[int],
) -> dict[str, Tensor]:
    """Outputs and gradients; `dropped`: teachers of whose output the loss has nothing."""
    g = torch.Generator().manual_seed(1)
    inputs = [torch.randn(5, 9, 16, generator=g).to(device, dtype).requires_grad_() for _ in mlps[0]]
    parameters = [p for of_teacher in mlps for mlp in of_teacher for p in mlp.parameters()]
    outputs = sums(mlps, inputs)
    losses = [x.float().sin().mean() * (t + 1) for t, x in enumerate(outputs) if t not in dropped]
    torch.stack(losses).sum().backward()
    found = {f"output {t}": x.detach() for t, x in enumerate(outputs)}
    found |= {f"input {number}": x.grad for number, x in enumerate(inputs) if x.grad is not None}
    for number, parameter in enumerate(parameters):
        grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        found[f"parameter {number}"] = grad
        parameter.grad = None
    return {name: x.float().clone() for name, x in found.items()}


def one_by_one(mlps: list[list[Mlp]], inputs: list[Tensor]) -> list[Tensor]:
    """The definition: a sum over blocks of MLPs."""
    return [
        torch.stack([mlp(x.float()) for mlp, x in zip(of_teacher, inputs, strict=True)]).sum(0)
        for of_teacher in mlps
    ]


@pytest.mark.parametrize("dropped", [set(), {1}])
@pytest.mark.parametrize(
    ("widths", "hidden"), [((24, 24), (8, 8, 32)), ((24, 8, 40), (16,)), ((8,), (8, 24))]
)
def test_joined_products_give_outputs_and_gradients_of_the_ladder(widths, hidden, dropped, device):
    mlps, dropped = mlps_of(device, widths, hidden), dropped if len(widths) > 1 else set()
    wanted, found = (run_mlps(f, mlps, device, torch.float32, dropped) for f in (one_by_one, sums_of_mlps))
    assert wanted.keys() == found.keys()
    for name, x in wanted.items():
        assert close(found[name], x, 1e-5), name


def test_joined_products_in_bf16_point_the_same_way(device):
    mlps = mlps_of(device, (24, 16), (32, 32, 64))
    wanted = run_mlps(one_by_one, mlps, device, torch.float32, set())
    found = run_mlps(sums_of_mlps, mlps, device, torch.bfloat16, set())
    for name, x in wanted.items():
        assert F.cosine_similarity(found[name].flatten(), x.flatten(), dim=0) >= 0.9995, name


def test_joined_products_give_the_gradient_of_finite_differences(device):
    mlps = [[mlp.double() for mlp in of_teacher] for of_teacher in mlps_of(device, (5, 3), (4, 6))]
    inputs = [torch.randn(2, 3, 16, dtype=torch.float64, device=device).requires_grad_() for _ in range(2)]
    assert torch.autograd.gradcheck(lambda *inputs: sums_of_mlps(mlps, inputs), inputs)


class Unused(torch.autograd.Function):
    """Passes on that there is no gradient, as DistributedDataParallel does of outputs without a loss."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.set_materialize_grads(False)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *_: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        return None


def test_projectors_whose_tokens_have_no_loss_have_no_gradient(device):
    mlps = mlps_of(device, (8, 8), (8,))
    x = torch.randn(2, 3, 16, device=device).requires_grad_()
    outputs = sums_of_mlps(mlps, [x])
    (sum(Unused.apply(output).sum() for output in outputs) + x.sum()).backward()
    assert all(p.grad is None for of_teacher in mlps for mlp in of_teacher for p in mlp.parameters())
    assert x.grad is not None and (x.grad == 1).all()


def test_gelu_and_its_gradient_are_torch_s(device):
    numbers = torch.cat([torch.linspace(-8, 8, 20_001), torch.tensor([0.0, -0.0, 1e-30, -90.0, 90.0])])
    exact = numbers.double().requires_grad_()
    wanted = F.gelu(exact)
    (of_exact,) = torch.autograd.grad(wanted.sum(), exact)
    x = numbers.to(device).requires_grad_()
    found = torch_compile.compiled(FastGelu().forward)(x)
    (of_x,) = torch.autograd.grad(found.sum(), x)
    assert (found.cpu() - wanted).abs().max() < 1e-6
    assert (of_x.cpu() - of_exact).abs().max() < 1e-6


def test_gelu_in_bf16_is_torch_s_to_its_last_bit(device):
    x = torch.linspace(-6, 6, 5_001).bfloat16().to(device)
    wanted = F.gelu(x.float()).bfloat16()
    found = torch_compile.compiled(fast_gelu)(x)
    assert ((found.float() - wanted.float()).abs() <= 2**-7 * wanted.float().abs() + 1e-6).all()


def test_only_the_exact_gelu_is_replaced():
    layers = nn.ModuleList([nn.GELU(), nn.GELU("tanh"), Mlp(4, 4, 4), nn.ReLU()])
    assert replace_gelu(layers) == 2
    assert isinstance(layers[0], FastGelu) and isinstance(layers[1], nn.GELU)


@pytest.mark.parametrize("device", DEVICES[1:], indirect=True)
@pytest.mark.parametrize("shape", [(6, 24), (4, 9, 24)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_loss_has_value_and_gradient_of_the_definition(shape, dtype, device):
    g = torch.Generator().manual_seed(0)
    output, target, weight = (torch.randn(size, generator=g) for size in (shape, shape, shape[:-1]))
    found, wanted = [], []
    for results, form, there, exact in (
        (found, fast_token_loss, device, dtype),
        (wanted, token_loss, torch.device("cpu"), torch.float64),
    ):
        x = output.to(dtype).to(there, exact).detach().requires_grad_()
        loss = form(x, target.to(there, exact if exact == torch.float64 else torch.float32), LossConfig())
        (loss * weight.to(there)).sum().backward()
        assert x.grad is not None
        results += [loss.detach().cpu().double(), x.grad.cpu().double()]
    assert close(found[0], wanted[0], 1e-5)
    assert close(found[1], wanted[1], 1e-5 if dtype == torch.float32 else 2**-8)


def test_every_view_is_recoloured_as_by_the_definition(device):
    cfg, count = ViewConfig(image_size=32), 96
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=g)
    index = torch.arange(count)
    drawn = photometric_parameters(torch.zeros_like(index), index, 3, cfg)
    for chosen in (drawn.jitters, drawn.grays, drawn.blurs, drawn.solarizes):
        assert 0 < chosen.sum() < count
    difference = (
        color_jitter_gpu(images.to(device), drawn, cfg).cpu().int() - color_jitter(images, drawn, cfg).int()
    )
    assert difference.abs().max() <= 1 and (difference != 0).float().mean() < 1e-3


@pytest.mark.gpu
@needs_accelerator
@pytest.mark.parametrize("kernels", ["exact", "fast"])
def test_exact_kernels_never_ask_for_the_compiler(kernels, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("compiled")

    monkeypatch.setattr(torch, "compile", refuse)
    torch_compile._compiled.cache_clear()
    recipe = replace(debug(), teachers=("timm:test_vit?pretrained=0&image_size=32",))
    recipe = replace(recipe, speed=replace(recipe.speed, kernels=kernels))
    assert ACCELERATOR is not None
    with contextlib.nullcontext() if kernels == "exact" else pytest.raises(AssertionError, match="compiled"):
        TimedStep(recipe, torch.device(ACCELERATOR.type, 0)).step()


@pytest.mark.parametrize(("size", "patch", "bias"), [((32, 48), (16, 16), True), ((28, 28), (14, 7), False)])
def test_an_embedding_of_patches_is_a_product(size, patch, bias, device):
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 10, patch, stride=patch, bias=bias), nn.Conv2d(10, 10, 1), nn.Conv2d(10, 4, 3, padding=1)
    ).to(device)
    x, weight = torch.randn(2, 3, *size, device=device), layers[0].weight
    # A product of float32 is exact by default.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        wanted = layers(x)
        (of_weight,) = torch.autograd.grad(wanted.square().sum(), weight)
        assert replace_patch_embed(layers) == 1
        found = layers(x)
        assert close(found, wanted, 1e-5)
        assert close(torch.autograd.grad(found.square().sum(), weight)[0], of_weight, 1e-4)


@pytest.mark.parametrize("device", DEVICES[1:], indirect=True)
def test_standardised_features_and_moments_are_the_definition_s(device):
    g = torch.Generator().manual_seed(0)
    tokens = Tokens(torch.randn(6, 12, generator=g), torch.randn(6, 9, 8, generator=g) * 3 + 50)
    plain = Standardizer(Widths(12, 8), StatisticsConfig())
    plain.update(plain.moments(tokens), 1.0)
    kernels = choose_kernels("fast", torch.device("meta"), None)
    fast = Standardizer(Widths(12, 8), StatisticsConfig(), kernels.statistics).to(device)
    fast.load_state_dict(plain.state_dict())
    there = Tokens(tokens.cls.to(device), tokens.patches.to(device))
    found, wanted = fast(there), plain(tokens)
    assert close(found.cls.cpu(), wanted.cls, 1e-5) and close(found.patches.cpu(), wanted.patches, 1e-5)
    moments, summed = fast.moments(there), plain.moments(tokens)
    assert isinstance(moments, Moments) and torch.equal(moments.counts.cpu(), summed.counts)
    assert close(moments.sums.cpu(), summed.sums, 1e-5)


def student_of(device: torch.device, kernels: StudentKernels = EXACT) -> Student:
    cfg = StudentConfig(model=None, image_size=32, width=32, depth=3, heads=2, patch_size=8, drop_path=0.3)
    ladder = LadderConfig(hidden=32, last_hidden=64)
    return build_student(cfg, ladder, {"a": Widths(24, 16)}, seed=0, kernels=kernels).to(device)


def test_a_compiled_student_says_and_learns_the_same(device):
    plain = student_of(device)
    fast = student_of(device, choose_kernels("fast", torch.device("meta"), None).student)
    assert plain.state_dict().keys() == fast.state_dict().keys()
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, device=device)
    draws = torch.rand(4, plain.num_draws, device=device)
    for mode in (True, False):
        results = []
        for student in (plain.train(mode), fast.train(mode)):
            student.zero_grad()
            tokens = student(images, draws)["a"]
            (tokens.cls.sin().sum() + tokens.patches.sin().sum()).backward()
            results.append(
                [tokens.cls, tokens.patches, *(p.grad for p in student.parameters() if p.grad is not None)]
            )
        assert len(results[0]) == len(results[1])
        assert all(close(x, y, 1e-4) for x, y in zip(results[1], results[0], strict=True))


def test_a_compiled_teacher_says_the_same_at_every_batch_size(device):
    torch.manual_seed(0)
    model: Any = timm.create_model("test_vit", num_classes=0).eval().requires_grad_(False).to(device)
    assert isinstance(model, VisionTransformer)
    images = [torch.rand(size, 3, 160, 160, device=device) for size in (2, 5, 3)]
    with torch.no_grad():
        wanted = [model.forward_features(x) for x in images]
        assert compile_vits(model) == len(model.blocks)
        assert all(close(model.forward_features(x), y, 1e-5) for x, y in zip(images, wanted, strict=True))


@pytest.mark.parametrize("registers", [None, 3])
def test_blocks_read_whole_give_the_tokens_and_gradients_of_timm_s_slices(registers, device):
    cfg = StudentConfig(
        model=None, image_size=32, width=16, depth=2, heads=2, patch_size=8, registers=registers
    )
    encoder = build_encoder(cfg, seed=0).to(device)
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, device=device)
    results = []
    for blocks in (encoder.block_outputs(images), split_block_outputs(encoder, images)):
        encoder.zero_grad()
        sum(
            (tokens.cls.sin().sum() + tokens.patches.cos().sum() for tokens in blocks), torch.zeros(())
        ).backward()
        gradients = [p.grad for p in encoder.parameters() if p.grad is not None]
        results.append([x for tokens in blocks for x in (tokens.cls, tokens.patches)] + gradients)
    assert len(results[0]) == len(results[1]) > 4
    assert all(close(x, y, 1e-5) for x, y in zip(results[1], results[0], strict=True))


@pytest.mark.slow
@pytest.mark.usefixtures("as_a_user_has_it")
@pytest.mark.parametrize(
    "build",
    [
        lambda **size: VisionTransformer(reg_tokens=2, **size),
        lambda **size: Eva(use_rot_pos_emb=True, **size),
    ],
)
def test_blocks_compiled_for_a_cpu_say_the_same(build):
    torch.manual_seed(0)
    model = build(img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=2, num_classes=0)
    model = model.eval().requires_grad_(False)
    images = [torch.rand(size, 3, 32, 32) for size in (2, 3)]
    for autocast, tolerance in ((False, 1e-5), (True, 2**-6)):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            wanted = [model.forward_features(x).float() for x in images]
            fast = copy.deepcopy(model)
            assert compile_vits(fast) == 3
            found = [fast.forward_features(x).float() for x in images]
        assert all(close(x, y, tolerance) for x, y in zip(found, wanted, strict=True))


@pytest.mark.gpu
@needs_accelerator
@pytest.mark.usefixtures("as_a_user_has_it")
def test_no_step_waits_for_the_accelerator():
    recipe = debug()
    recipe = replace(
        recipe,
        teachers=tuple(f"timm:{n}?pretrained=0&image_size=32" for n in ("test_convnext", "test_vit")),
        optim=replace(recipe.optim, max_grad_norm=1.0),
        speed=replace(recipe.speed, precision="bf16", micro_batch=4),
    )
    assert ACCELERATOR is not None
    step = TimedStep(recipe, torch.device(ACCELERATOR.type, 0))
    for _ in range(3):
        step.step()
    assert step.count_host_syncs() == 0


@pytest.mark.gpu
@needs_accelerator
@pytest.mark.usefixtures("as_a_user_has_it")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_twenty_steps_on_an_accelerator_have_the_losses_of_the_exact_form(losses_of_twenty_steps, precision):
    assert ACCELERATOR is not None
    kind = ACCELERATOR.type
    losses = {kernels: losses_of_twenty_steps(kernels, precision, kind) for kernels in ("exact", "fast")}
    assert len(losses["fast"]) == 20
    assert (losses["fast"] - losses["exact"]).abs().max() <= 1e-3
