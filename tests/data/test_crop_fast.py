import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from unic.core.dataclass_json import from_dict, to_dict
from unic.core.errors import ConfigError
from unic.data.bad_images import BadImages
from unic.data.color_jitter.cpu import color_jitter_cpu
from unic.data.color_jitter.exact import Photometric, color_jitter
from unic.data.config import DataConfig, ViewConfig
from unic.data.crop import crop_box, geometric_draws, random_resized_crop
from unic.data.crop_fast import read_view, shrink_of
from unic.data.decode import BadImage, read_image, sample_photographs
from unic.data.loader import StepPlan, training_batches
from unic.data.photometric import augment, photometric_parameters
from unic.data.sources import read_sources
from unic.method.types import Batch

CPU = torch.device("cpu")

FAST, SHRUNK = ViewConfig(pixels="fast"), ViewConfig(pixels="shrunk")
WHOLE = (*[0.999999, 0.5] * 10, 0.0, 0.0, 0.9)  # draws of nearly the whole image, not flipped


def draws(count: int) -> list[list[float]]:
    return geometric_draws(0, torch.zeros(count, dtype=torch.int64), torch.arange(count)).tolist()


def levels(some: Tensor, others: Tensor) -> Tensor:
    return (some.int() - others.int()).abs().float()


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """ImageNet's typical size, and one of several megapixels."""
    folder = tmp_path_factory.mktemp("photographs")
    palace, flower = sample_photographs()
    palace.resize((500, 334)).save(folder / "small.jpg", quality=90)
    flower.resize((2000, 1334), Image.Resampling.BICUBIC).save(folder / "large.jpg", quality=90)
    return [folder / "small.jpg", folder / "large.jpg"]


def test_a_fast_view_is_the_plain_one_but_for_rounding(photographs: list[Path]):
    for path in photographs:
        for row in draws(6):
            difference = levels(read_view(path, row, FAST), random_resized_crop(read_image(path), row, FAST))
            assert difference.mean() < 0.5
            assert (difference > 1).float().mean() < 0.01


def test_a_shrunk_view_is_within_three_levels_on_average(photographs: list[Path]):
    shrunk = 0
    for row in draws(10):
        image = read_image(photographs[1])
        _, _, width, height = crop_box(*image.size, row[:-1], SHRUNK)
        shrunk += shrink_of(width, height, 224) > 1
        assert (
            levels(read_view(photographs[1], row, SHRUNK), random_resized_crop(image, row, SHRUNK)).mean() < 3
        )
    assert shrunk >= 5


def test_shrinking_moves_no_edge(tmp_path: Path):
    """A ramp's value is its place, so a crop shifted by one pixel of the view would show as a level or more."""
    ramp = np.linspace(0, 255, 1920).round().astype(np.uint8)
    Image.fromarray(np.stack([np.tile(ramp, (1600, 1))] * 3, axis=2)).save(tmp_path / "ramp.jpg", quality=95)
    for row in draws(8):
        plain = random_resized_crop(read_image(tmp_path / "ramp.jpg"), row, SHRUNK)
        signed = read_view(tmp_path / "ramp.jpg", row, SHRUNK).float() - plain.float()
        assert signed.mean().abs() < 0.2 and signed.abs().max() <= 3


def test_where_nothing_can_be_shrunk_both_are_the_same(photographs: list[Path]):
    for row in draws(6):
        assert torch.equal(read_view(photographs[0], row, SHRUNK), read_view(photographs[0], row, FAST))


@pytest.mark.parametrize(
    ("width", "height", "shrink"),
    [(500, 375, 1), (447, 900, 1), (448, 448, 2), (895, 2000, 2), (896, 900, 4), (1792, 1792, 8)],
)
def test_a_crop_is_never_shrunk_below_its_view(width: int, height: int, shrink: int):
    assert shrink_of(width, height, 224) == shrink


@pytest.mark.parametrize(
    "kind", ["gray.jpg", "cmyk.jpg", "progressive.jpg", "a.png", "palette.gif", "16.png"]
)
@pytest.mark.parametrize("cfg", [FAST, SHRUNK], ids=lambda cfg: cfg.pixels)
def test_every_kind_of_file_gives_the_plain_view(kind: str, cfg: ViewConfig, tmp_path: Path):
    image = sample_photographs()[1].resize((320, 240))
    if kind == "gray.jpg":
        image = image.convert("L")
    elif kind == "cmyk.jpg":
        image = image.convert("CMYK")
    elif kind == "palette.gif":
        image = image.convert("P")
    elif kind == "16.png":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) << 8)
    image.save(tmp_path / kind, progressive=kind == "progressive.jpg")
    cfg = replace(cfg, image_size=64)
    for row in draws(4):
        plain = random_resized_crop(read_image(tmp_path / kind), row, cfg)
        # Shrunk by 2 a picture of hard dots, as a palette's, would differ by more; only JPEGs are shrunk.
        assert levels(read_view(tmp_path / kind, row, cfg), plain).mean() < (3 if "jpg" in kind else 0.5)


@pytest.mark.parametrize("size", [(1, 1), (65_500, 1), (3, 9_000)])
def test_extreme_shapes_give_views(size: tuple[int, int], tmp_path: Path):
    Image.new("RGB", size, (80, 80, 80)).save(tmp_path / "a.jpg")
    view = read_view(tmp_path / "a.jpg", draws(1)[0], SHRUNK)
    assert levels(view, torch.full((3, 224, 224), 80)).max() <= 1


def test_the_same_files_are_bad(photographs: list[Path], tmp_path: Path):
    """Broken in the header, anywhere, or cut short: `read_image` and `read_view` agree on each."""
    generator = np.random.default_rng(0)
    buffer = io.BytesIO()
    read_image(photographs[0]).resize((64, 48)).save(buffer, "JPEG", quality=60)
    whole, outcomes = buffer.getvalue(), [0, 0]
    cfg = replace(FAST, image_size=32)
    for number in range(120):
        content = bytearray(whole)
        for place in generator.integers(0, 300 if number % 2 else len(whole), size=3):
            content[place] = generator.integers(256)
        if number % 3 == 0:
            content = content[: generator.integers(len(whole))]
        (tmp_path / "a.jpg").write_bytes(content)
        try:
            plain = random_resized_crop(read_image(tmp_path / "a.jpg"), WHOLE, cfg)
        except BadImage as error:
            with pytest.raises(BadImage) as caught:
                read_view(tmp_path / "a.jpg", WHOLE, cfg)
            assert str(caught.value) == str(error)
            outcomes[0] += 1
        else:
            assert levels(read_view(tmp_path / "a.jpg", WHOLE, cfg), plain).mean() < 2
            outcomes[1] += 1
    assert min(outcomes) > 20


def pictures(count: int, size: int) -> Tensor:
    """Noise, grays, pure colours, and smooth colours: the corners of hue and of clamping."""
    images = torch.randint(0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(0))
    images[1::4, 1:] = images[1::4, :1]
    images[2::4] = images[2::4].div(128, rounding_mode="floor") * 255
    images[3::4] = images[3::4, :, :1, :1] // 2 + torch.arange(size) * 128 // size
    return images.to(torch.uint8)


def parameters_of(count: int, cfg: ViewConfig) -> Photometric:
    index = torch.arange(count)
    return photometric_parameters(torch.zeros_like(index), index, 0, cfg)


@pytest.mark.parametrize(
    "cfg",
    [
        ViewConfig(image_size=24),
        ViewConfig(image_size=24, jitter=(1.0, 1.0, 1.0, 0.5), jitter_prob=1.0, blur_kernel=3),
        ViewConfig(image_size=24, jitter_prob=0.0, grayscale_prob=1.0, solarize_prob=1.0),
        ViewConfig(image_size=24, blur_prob=1.0, blur_kernel=23, solarize_prob=1.0),
    ],
    ids=["recipe", "strong", "gray", "wide"],
)
def test_fast_recolouring_is_the_plain_one_to_a_level(cfg: ViewConfig):
    images, parameters = pictures(120, 24), parameters_of(120, cfg)
    before = images.clone()
    difference = levels(color_jitter_cpu(images, parameters, cfg), color_jitter(images, parameters, cfg))
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 1e-3  # a sum at the middle between two levels
    assert torch.equal(images, before)


def test_a_factor_of_nothing_is_black_gray_or_flat():
    cfg = ViewConfig(image_size=24)
    images, drawn = pictures(8, 24), parameters_of(8, cfg)
    zero = replace(drawn, jitters=torch.ones(8, dtype=torch.bool), factors=torch.zeros(8, 4))
    assert torch.equal(color_jitter_cpu(images, zero, cfg), color_jitter(images, zero, cfg))


def test_an_image_is_recoloured_fast_the_same_in_any_company():
    cfg = ViewConfig(image_size=24, pixels="fast")
    index = torch.arange(30)
    batch = Batch(pictures(30, 24), index, index % 2)
    together = augment(batch, 0, cfg, CPU, color_jitter_cpu).images
    alone = augment(
        Batch(batch.images[7:9], batch.index[7:9], batch.view[7:9]), 0, cfg, CPU, color_jitter_cpu
    ).images
    assert torch.equal(alone, together[7:9])
    assert levels(together, augment(batch, 0, cfg, CPU).images).max() <= 1


@pytest.mark.parametrize("workers", [0, 2])
def test_training_takes_fast_views_of_the_same_images(workers: int, photographs: list[Path], tmp_path: Path):
    for number in range(6):
        read_image(photographs[0]).resize((90 + number, 70)).save(tmp_path / f"{number}.jpg")
    (tmp_path / "3.jpg").write_bytes(b"spoilt")
    batches = {}
    for pixels in ("exact", "fast"):
        cfg = DataConfig(views=ViewConfig(image_size=32, pixels=pixels))
        sources, bad = read_sources([str(tmp_path)]), BadImages()
        plan = StepPlan(sources=sources, cfg=cfg, seed=0, global_batch=3)
        steps = training_batches(plan, range(4), bad=bad, workers=workers)
        batches[pixels] = [batch for step in steps for batch in step]
        assert len(bad) == 1
    for fast, plain in zip(batches["fast"], batches["exact"], strict=True):
        assert torch.equal(fast.index, plain.index) and torch.equal(fast.view, plain.view)
        assert levels(fast.images, plain.images).mean() < 0.5


def test_a_run_of_an_earlier_version_goes_on_as_it_began():
    """Its configuration has no such field. One that names a way that does not exist is refused."""
    stored = to_dict(ViewConfig(pixels="fast"))
    assert from_dict(ViewConfig, stored).pixels == "fast"
    del stored["pixels"]
    assert from_dict(ViewConfig, stored).pixels == "exact"
    with pytest.raises(ConfigError, match="quick"):
        from_dict(ViewConfig, {**stored, "pixels": "quick"})
