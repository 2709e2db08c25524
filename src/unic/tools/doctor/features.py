"""What one teacher says about the images, and what that costs.

Letters: M images, B images of a batch, K patches kept of an image, N patches, D E widths, h w grid.
"""

import statistics
import time
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unic.core.keyed_random import uniforms
from unic.core.progress import with_progress
from unic.core.to_device import wait_for
from unic.method.types import Tokens
from unic.models.encoder import ImageEncoder
from unic.teachers.live_teachers import resample
from unic.tools.doctor.peak_memory import LiveBytes, parameter_bytes
from unic.tools.doctor.sample_images import SampleImages

PATCHES_OF_ONE_TEACHER = 2000
"""About as many patches, of all images together, tell what a teacher's patches are like."""
PATCHES_OF_A_PAIR = 1000


@dataclass(frozen=True, kw_only=True)
class TeacherFeatures:
    """Features are float32 on the CPU, those of all images unless `finite` says otherwise.

    patches: some of each image, on the teacher's own grid, drawn by keys.
    aligned: some of each image, on the grid that all teachers are brought to; the same places for every teacher.
    norms: of all patches.
    finite: images whose features are all finite; the others' rows are not to be used.
    images_per_second: of the median batch, after one that does not count.
    batch_bytes: most bytes of tensors alive at once while it looks at a batch of `batch_size`.
    """

    cls: Float[Tensor, "M D"]
    patches: Float[Tensor, "M K E"]
    aligned: Float[Tensor, "M _ E"]
    norms: Float[Tensor, "M N"]
    finite: Bool[Tensor, " M"]
    images_per_second: float
    parameter_bytes: int
    batch_bytes: int
    batch_size: int


@torch.inference_mode()
def extract_features(
    encoder: ImageEncoder,
    pictures: SampleImages,
    grid: tuple[int, int],
    *,
    batch_size: int,
    device: torch.device,
) -> TeacherFeatures:
    """Runs the teacher over the images, in batches of at most `batch_size`.

    grid: to which the aligned patches are brought, as `LiveTeachers` does it.
    """
    images = pictures.views[encoder.image_size]
    own = _places(pictures, encoder.grid, PATCHES_OF_ONE_TEACHER)
    common = _places(pictures, grid, PATCHES_OF_A_PAIR)
    batches = images.split(batch_size)
    with LiveBytes(encoder) as live:  # this one also warms up, and is not timed
        encoder(batches[0].to(device))
    cls, patches, aligned, norms, rates = [], [], [], [], []
    steps = with_progress(batches, len(images), encoder.name, size=len)
    for batch, own_places, common_places in zip(
        steps, own.split(batch_size), common.split(batch_size), strict=True
    ):
        pixels = batch.to(device)
        wait_for(device)
        start = time.perf_counter()
        tokens = encoder(pixels)
        wait_for(device)
        rates.append(len(batch) / (time.perf_counter() - start))
        tokens = tokens.float()
        cls.append(tokens.cls.cpu())
        patches.append(_at(tokens.patches, own_places).cpu())
        aligned.append(_at(resample(tokens, grid).patches, common_places).cpu())
        norms.append(tokens.patches.norm(dim=-1).cpu())
    whole = Tokens(torch.cat(cls), torch.cat(patches))
    all_norms = torch.cat(norms)
    return TeacherFeatures(
        cls=whole.cls,
        patches=whole.patches,
        aligned=torch.cat(aligned),
        norms=all_norms,
        finite=whole.cls.isfinite().all(1) & all_norms.isfinite().all(1),
        images_per_second=statistics.median(rates),
        parameter_bytes=parameter_bytes(encoder.model),
        batch_bytes=live.peak,
        batch_size=len(batches[0]),
    )


def _places(pictures: SampleImages, grid: tuple[int, int], total: int) -> Tensor:
    """Positions (M, K) of patches on a grid: of each image its own, so that no place of the picture is preferred."""
    num_patches = grid[0] * grid[1]
    kept = min(num_patches, -(-total // len(pictures)))
    view = torch.full_like(pictures.index, -1)
    draws = uniforms(0, "patches of the doctor", view, pictures.index, num_patches)
    return draws.argsort(dim=1)[:, :kept]


def _at(patches: Float[Tensor, "B N E"], places: Tensor) -> Float[Tensor, "B K E"]:
    return patches.take_along_dim(places.to(patches.device)[:, :, None], dim=1)
