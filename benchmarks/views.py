"""How much faster training views are made than by torchvision's transforms, one image at a time, side by side.

    python benchmarks/views.py --roots ~/imagenet/val --images 64

torchvision's are RandomResizedCrop (bicubic), flip, ColorJitter, grayscale, GaussianBlur and RandomSolarize with
the numbers of ViewConfig, behind Pillow's decoder, in three forms: "pil" (Pillow's images throughout), "uint8"
(tensors of bytes) and "float" (a tensor of bytes until it is cropped, of floats from there, as ours). Ours is
`random_resized_crop(read_image(...))` or `read_view`, in batches, then `color_jitter` or `color_jitter_cpu`; "device"
leaves the colours out, which an accelerator changes where there is one.

Repeats are interleaved, every one draws new crops, and medians of processor seconds count: other work on the
machine disturbs them least. Without `--roots` the images are scikit-learn's two photographs at 500 x 375, quality 90.
"""

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import PIL
import torch
import torchvision
import tyro
from common import machine, medians, report
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from unic.data.color_jitter.cpu import color_jitter_cpu
from unic.data.color_jitter.exact import color_jitter
from unic.data.config import ViewConfig
from unic.data.crop import geometric_draws, random_resized_crop
from unic.data.crop_fast import read_view
from unic.data.decode import read_image, sample_photographs
from unic.data.folders import read_paths
from unic.data.photometric import photometric_parameters


@dataclass(frozen=True, kw_only=True)
class Options:
    roots: tuple[Path, ...] = ()
    """Folders or lists of images; empty: photographs that come with scikit-learn."""
    images: int = 64
    """Read in each repeat; also the size of our batches."""
    repeats: int = 9
    image_size: int = 224
    threads: int = 1
    out: Path | None = None
    """Folder for one JSON file of the numbers."""


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        paths = [path for root in options.roots for path in read_paths(root)] or photographs(Path(folder))
        stride = max(1, len(paths) // options.images)
        chosen = (paths[::stride] * options.images)[: options.images]
        num_pixels = statistics.mean(math.prod(read_image(path).size) for path in chosen)
        num_bytes = statistics.mean(Path(path).stat().st_size for path in chosen)
        milliseconds = measured(chosen, options)
    views = {name: 1000 / value for name, value in milliseconds.items()}
    theirs = {name: rate for name, rate in views.items() if name.startswith("torchvision")}
    numbers = {
        **machine(),
        "torchvision": torchvision.__version__,
        "pillow": PIL.__version__,
        "images": len(chosen),
        "different": len(set(chosen)),
        "mean_pixels": round(num_pixels),
        "mean_bytes": round(num_bytes),
        "image_size": options.image_size,
        "repeats": options.repeats,
        "images_per_second": {name: round(rate) for name, rate in views.items()},
        "milliseconds_an_image": {name: round(value, 3) for name, value in milliseconds.items()},
        "ours_over": {
            other: {name: round(rate / value, 2) for name, rate in views.items() if name not in theirs}
            for other, value in theirs.items()
        },
    }
    report(numbers, options.out, "views")


def measured(paths: Sequence[str], options: Options) -> dict[str, float]:
    """Processor milliseconds an image, the median of all repeats, of every way to make the views."""
    cfg = ViewConfig(image_size=options.image_size)
    ways: dict[str, Callable[[int], None]] = {
        f"torchvision {form}": one_by_one(paths, transform) for form, transform in transforms(cfg).items()
    }
    for pixels in ("exact", "fast", "shrunk"):
        ways[f"ours {pixels}"] = batched(paths, replace(cfg, pixels=pixels), colours=True)
        ways[f"ours {pixels}, device"] = batched(paths, replace(cfg, pixels=pixels), colours=False)
    seconds = medians(options.repeats, ways, time.process_time)
    return {name: 1000 * value / len(paths) for name, value in seconds.items()}


def transforms(cfg: ViewConfig) -> dict[str, Callable[[Image.Image], Tensor]]:
    side = {"interpolation": v2.InterpolationMode.BICUBIC, "antialias": True}
    crop = v2.RandomResizedCrop(cfg.image_size, cfg.scale, cfg.ratio, **side)
    geometry = [crop, v2.RandomHorizontalFlip(cfg.flip)]
    colours = [
        v2.RandomApply([v2.ColorJitter(*cfg.jitter)], cfg.jitter_prob),
        v2.RandomGrayscale(cfg.grayscale_prob),
        v2.RandomApply([v2.GaussianBlur(cfg.blur_kernel, cfg.blur_sigma)], cfg.blur_prob),
    ]
    bytes_solarize = v2.RandomSolarize(255 * cfg.solarize_threshold, cfg.solarize_prob)
    floats_solarize = v2.RandomSolarize(cfg.solarize_threshold, cfg.solarize_prob)
    floats, to_bytes = v2.ToDtype(torch.float32, scale=True), v2.ToDtype(torch.uint8, scale=True)
    return {
        "pil": v2.Compose([*geometry, *colours, bytes_solarize, v2.PILToTensor()]),
        "uint8": v2.Compose([v2.ToImage(), *geometry, *colours, bytes_solarize]),
        "float": v2.Compose([v2.ToImage(), *geometry, floats, *colours, floats_solarize, to_bytes]),
    }


def one_by_one(paths: Sequence[str], transform: Callable[[Image.Image], Tensor]) -> Callable[[int], None]:
    def way(repeat: int) -> None:
        torch.manual_seed(repeat)
        images = []
        for path in paths:
            with Image.open(path) as image:
                images.append(transform(image.convert("RGB")))
        torch.stack(images)

    return way


def batched(paths: Sequence[str], cfg: ViewConfig, *, colours: bool) -> Callable[[int], None]:
    change = color_jitter if cfg.pixels == "exact" else color_jitter_cpu
    index = torch.arange(len(paths))

    def way(repeat: int) -> None:
        view = torch.full_like(index, repeat)
        images = torch.empty(len(paths), 3, cfg.image_size, cfg.image_size, dtype=torch.uint8)
        for number, row in enumerate(geometric_draws(0, view, index).tolist()):
            path = paths[number]
            images[number] = (
                random_resized_crop(read_image(path), row, cfg)
                if cfg.pixels == "exact"
                else read_view(path, row, cfg)
            )
        if colours:
            change(images, photometric_parameters(view, index, 0, cfg), cfg)

    return way


def photographs(folder: Path) -> list[str]:
    paths = []
    for number, photograph in enumerate(sample_photographs()):
        paths.append(str(folder / f"{number}.jpg"))
        photograph.resize((500, 375), Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    return paths


if __name__ == "__main__":
    main(tyro.cli(Options))
