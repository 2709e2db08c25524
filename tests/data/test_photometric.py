from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from unic.data.color_jitter.cpu import color_jitter_cpu
from unic.data.color_jitter.exact import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    blur,
    color_jitter,
    solarize,
)
from unic.data.color_jitter.gpu import color_jitter_gpu
from unic.data.config import ViewConfig
from unic.data.photometric import augment, choose_color_jitter, photometric_parameters
from unic.method.types import Batch

CPU = torch.device("cpu")

LEVEL = 1 / 255


def pictures(num_images: int, size: int = 20) -> Tensor:
    """Random pixels; some images with grays, pure colours, black and white in them: the corners of hue."""
    images = torch.randint(0, 256, (num_images, 3, size, size), generator=torch.Generator().manual_seed(0))
    images[1::3, 1:] = images[1::3, :1]
    images[2::3] = images[2::3].div(128, rounding_mode="floor") * 255
    return images.to(torch.uint8)


def many(num_images: int, size: int = 20) -> Batch:
    return Batch(pictures(num_images, size), torch.arange(num_images) * 7, torch.arange(num_images) % 3)


@pytest.mark.parametrize(
    ("ours", "oracle", "low", "high"),
    [
        (adjust_brightness, tv.adjust_brightness, 0.0, 2.0),
        (adjust_contrast, tv.adjust_contrast, 0.0, 2.0),
        (adjust_saturation, tv.adjust_saturation, 0.0, 2.0),
        (adjust_hue, tv.adjust_hue, -0.5, 0.5),
        (lambda x, sigma: blur(x, sigma, 9), lambda x, sigma: tv.gaussian_blur(x, [9, 9], [sigma]), 0.1, 5.0),
        (lambda x, _: solarize(x, 0.5), lambda x, _: tv.solarize(x, 0.5), 0.0, 1.0),
    ],
    ids=["brightness", "contrast", "saturation", "hue", "blur", "solarize"],
)
def test_an_operation_on_a_batch_is_torchvisions_on_each_image(
    ours: Callable[[Tensor, Tensor], Tensor],
    oracle: Callable[[Tensor, float], Tensor],
    low: float,
    high: float,
):
    images = pictures(12).float() / 255
    values = torch.linspace(low, high, 12)
    expected = torch.stack([oracle(image, value.item()) for image, value in zip(images, values, strict=True)])
    # Two ways to round the same formula in float32; far below a grey level.
    torch.testing.assert_close(ours(images, values), expected, rtol=0, atol=1e-5)


def test_the_whole_chain_is_torchvisions_with_the_same_numbers():
    batch, cfg = many(64), ViewConfig(image_size=20)
    drawn = photometric_parameters(batch.view, batch.index, 5, cfg)
    operations = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
    got = augment(batch, 5, cfg, CPU)
    for i, image in enumerate(batch.images):
        x = image.float() / 255
        if drawn.jitters[i]:
            for number in drawn.order[i].tolist():
                x = operations[number](x, drawn.factors[i, number].item())
        if drawn.grays[i]:
            x = tv.rgb_to_grayscale(x, 3)
        if drawn.blurs[i]:
            x = tv.gaussian_blur(x, [9, 9], [drawn.sigma[i].item()])
        # At the threshold itself the last bit decides between x and 1 - x, which are the same there.
        expected = tv.solarize(x, 0.5) if drawn.solarizes[i] else x
        # 0.51 levels: the rounding to uint8, and float32's own.
        assert (got.images[i] / 255 - expected).abs().max() <= 0.51 * LEVEL
    assert torch.equal(got.index, batch.index)
    assert torch.equal(got.view, batch.view)


def test_an_image_is_recoloured_the_same_in_any_company():
    batch, cfg = many(40), ViewConfig(image_size=20)
    together = augment(batch, 0, cfg, CPU).images
    for rows in ([3], [39, 0], list(range(10, 30))):
        alone = augment(Batch(batch.images[rows], batch.index[rows], batch.view[rows]), 0, cfg, CPU).images
        # One grey level: convolutions of another number of images may sum in another order.
        assert (alone.int() - together[rows].int()).abs().max() <= 1


def test_factors_probabilities_and_orders_have_their_distributions():
    n, cfg = 40_000, ViewConfig(jitter=(0.4, 0.3, 1.5, 0.1))
    drawn = photometric_parameters(torch.zeros(n, dtype=torch.int64), torch.arange(n), 0, cfg)
    for chosen, probability in (
        (drawn.jitters, 0.8),
        (drawn.grays, 0.2),
        (drawn.blurs, 0.2),
        (drawn.solarizes, 0.2),
    ):
        assert abs(chosen.float().mean() - probability) < 4 * (probability * (1 - probability) / n) ** 0.5
    for number, (low, high) in enumerate([(0.6, 1.4), (0.7, 1.3), (0.0, 2.5), (-0.1, 0.1)]):
        factors = drawn.factors[:, number]
        assert low - 1e-6 <= factors.min() < low + 0.001 * (high - low) + 1e-4
        assert high - 0.001 * (high - low) - 1e-4 < factors.max() <= high + 1e-6
        assert abs(factors.mean() - (low + high) / 2) < 4 * (high - low) / (12 * n) ** 0.5
    assert torch.equal(drawn.order.sort(dim=1).values, torch.arange(4).expand(n, 4))
    _, counts = drawn.order.unique(dim=0, return_counts=True)
    assert len(counts) == 24
    assert (counts - n / 24).abs().max() < 5 * (n / 24) ** 0.5


def test_nothing_happens_when_every_probability_is_zero():
    batch = many(6)
    cfg = ViewConfig(image_size=20, jitter_prob=0.0, grayscale_prob=0.0, blur_prob=0.0, solarize_prob=0.0)
    assert torch.equal(augment(batch, 0, cfg, CPU).images, batch.images)


def test_the_batch_it_was_given_stays_as_it_was():
    batch = many(20)
    before = batch.images.clone()
    augment(batch, 0, ViewConfig(image_size=20), CPU)
    assert torch.equal(batch.images, before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.accelerator.is_available(), reason="needs an accelerator")
def test_a_device_recolours_as_the_cpu_does_and_is_never_waited_for():
    device = torch.accelerator.current_accelerator()
    batch, cfg = many(64, 32), ViewConfig(image_size=32)
    drawn = photometric_parameters(batch.view, batch.index, 0, cfg)
    augment(batch, 0, cfg, device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        got = augment(batch, 0, cfg, device).images
    finally:
        torch.cuda.set_sync_debug_mode("default")
    difference = (got.cpu().int() - color_jitter(batch.images, drawn, cfg).int()).abs()
    # Solarize amplifies nothing at 0.5, so one rounding step is all two devices may differ by.
    assert difference.max() <= 1


@pytest.mark.parametrize(
    ("pixels", "device", "kernels", "wanted"),
    [
        ("exact", "cpu", "fast", color_jitter),
        ("fast", "cpu", "exact", color_jitter_cpu),
        ("shrunk", "cpu", "fast", color_jitter_cpu),
        ("exact", "cuda", "fast", color_jitter_gpu),
        ("fast", "cuda", "exact", color_jitter),
    ],
)
def test_which_form_changes_the_colours(pixels, device, kernels, wanted):
    cfg = ViewConfig(pixels=pixels)
    assert choose_color_jitter(cfg, torch.device(device), kernels) is wanted


def test_the_blur_draws_its_sigma_up_to_the_upper_end():
    index = torch.arange(20_000)
    sigma = photometric_parameters(torch.zeros_like(index), index, 0, ViewConfig()).sigma
    assert 0.1 <= sigma.min() < 0.11 and 4.99 < sigma.max() <= 5.0
    assert sigma.mean().item() == pytest.approx(2.55, abs=0.05)  # uniform between the published 0.1 and 5
