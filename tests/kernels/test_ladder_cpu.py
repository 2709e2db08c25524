"""The fast ladder against its definition."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unic.kernels.ladder_cpu import fast_ladder
from unic.method.types import Tokens, Widths
from unic.models.config import LadderConfig
from unic.models.ladder import Ladder

WIDTHS = {"a": Widths(24, 24), "b": Widths(20, 12)}
IMAGES, PATCHES, DIM, BLOCKS = 5, 9, 16, 3


def ladder_of(**options) -> Ladder:
    torch.manual_seed(0)
    ladder = Ladder(
        WIDTHS, dim=DIM, num_blocks=BLOCKS, cfg=LadderConfig(**{"hidden": 32, "last_hidden": 48, **options})
    )
    for parameter in ladder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # biases too
    return ladder


def run(ladder: Ladder, fast: bool, dropped: dict[str, list[int]], bf16: bool = False) -> dict[str, Tensor]:
    """Outputs, and gradients of inputs and parameters, where some images have no loss for some teachers."""
    g = torch.Generator().manual_seed(1)
    inputs = [torch.randn(IMAGES, 1 + PATCHES, DIM, generator=g).requires_grad_() for _ in range(BLOCKS)]
    ladder.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        blocks = [Tokens(x[:, 0], x[:, 1:]) for x in inputs]
        outputs = fast_ladder(ladder, blocks) if fast else ladder(blocks)
    loss = torch.zeros(())
    for name, tokens in outputs.items():
        kept = torch.tensor([float(image not in dropped.get(name, [])) for image in range(IMAGES)])
        loss = loss + (tokens.cls.float().square().mean(1) * kept).sum()
        loss = loss + (tokens.patches.float().sin().mean((1, 2)) * kept).sum()
    loss.backward()
    found = {f"input {number}": x.grad for number, x in enumerate(inputs)}
    found |= {name: parameter.grad for name, parameter in ladder.named_parameters()}
    for name, tokens in outputs.items():
        found |= {f"{name} cls": tokens.cls.detach(), f"{name} patches": tokens.patches.detach()}
    return {name: torch.zeros(()) if x is None else x.float().clone() for name, x in found.items()}


@pytest.mark.parametrize("dropped", [{}, {"a": [1, 3], "b": [0]}, {"b": [0, 1, 2, 3, 4]}])
@pytest.mark.parametrize("options", [{}, {"blocks": (0, 2)}, {"projector": "mlp"}, {"projector": "linear"}])
def test_outputs_and_gradients_are_those_of_the_ladder(options, dropped):
    ladder = ladder_of(**options)
    wanted, found = run(ladder, False, dropped), run(ladder, True, dropped)
    assert wanted.keys() == found.keys()
    for name, x in wanted.items():
        assert (found[name] - x).abs().max() <= 1e-5 * max(1.0, x.abs().max()), name


def test_in_bf16_they_point_the_same_way():
    ladder = ladder_of()
    exact, found = run(ladder, False, {"a": [2]}), run(ladder, True, {"a": [2]}, bf16=True)
    for name, x in exact.items():
        assert F.cosine_similarity(found[name].flatten(), x.flatten(), dim=0) >= 0.9995, name


def test_in_bf16_it_is_no_further_from_the_truth_than_the_ladder_itself():
    ladder = ladder_of()
    exact, plain, fast = (
        run(ladder, fast, {}, bf16) for fast, bf16 in ((False, False), (False, True), (True, True))
    )
    errors = [
        sum(((found[name] - x).norm() / x.norm()).item() for name, x in exact.items())
        for found in (plain, fast)
    ]
    assert errors[1] <= 1.25 * errors[0]


def test_images_without_a_gradient_take_part_in_no_product():
    """Not even with numbers that are infinite: what was dropped cannot spoil a step."""
    ladder = ladder_of(projector="mlp")
    x = torch.randn(2, 1 + PATCHES, DIM)
    x[1] = 1e38
    outputs = fast_ladder(ladder, [Tokens(x[:, 0], x[:, 1:])] * BLOCKS)
    outputs["a"].patches[0].sum().backward()
    gradient = ladder.get_parameter("heads.a.patch.2.layers.0.weight").grad
    assert gradient is not None and gradient.isfinite().all()


def test_the_gradient_is_right_by_finite_differences():
    ladder = ladder_of(hidden=3, last_hidden=4).double()
    inputs = [torch.randn(2, 3, DIM, dtype=torch.float64).requires_grad_() for _ in range(BLOCKS)]

    def output(*inputs: Tensor) -> Tensor:
        return fast_ladder(ladder, [Tokens(x[:, 0], x[:, 1:]) for x in inputs])["b"].patches

    assert torch.autograd.gradcheck(output, inputs)
