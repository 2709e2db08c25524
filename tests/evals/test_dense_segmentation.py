"""The linear head of segmentation, its losses, windows and scores, against slow definitions."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from sklearn.metrics import confusion_matrix, jaccard_score

from unic.core.errors import WeightsError
from unic.evals.dense.segmentation_head import (
    SegmentationHead,
    pixel_loss,
    read_segmentation_head,
    sampled_pixel_loss,
)
from unic.evals.dense.segmentation_metrics import class_iou, confusion, segmentation_scores
from unic.evals.dense.sliding_window import slide, windows
from unic.method.types import TokenMaps
from unic.models.weights import read_weights


def maps(*shapes: tuple[int, ...], seed: int = 0) -> list[TokenMaps]:
    g = torch.Generator().manual_seed(seed)
    return [
        TokenMaps(torch.randn(shape[0], shape[1], generator=g), torch.randn(shape, generator=g))
        for shape in shapes
    ]


def confusion_by_hand(predicted: np.ndarray, true: np.ndarray, num_classes: int) -> np.ndarray:
    table = np.zeros((num_classes, num_classes), dtype=np.int64)
    for p, t in zip(predicted.ravel().tolist(), true.ravel().tolist(), strict=True):
        if t != 255:
            table[t, p] += 1
    return table


@pytest.mark.parametrize(
    ("height", "width", "grid"),
    [
        (512, 683, (1, 2)),
        (512, 512, (1, 1)),
        (1100, 512, (3, 1)),
        (300, 200, (1, 1)),
        (853, 512, (2, 1)),
        (854, 512, (3, 1)),
    ],
)
def test_windows_form_the_grid_of_mmseg(height: int, width: int, grid: tuple[int, int]):
    found = windows(height, width, size=512, stride=341)
    assert len(found) == grid[0] * grid[1]
    assert len({w.top for w in found}) == grid[0] and len({w.left for w in found}) == grid[1]


@pytest.mark.parametrize(("height", "width"), [(512, 683), (1100, 512), (200, 900), (513, 1025)])
def test_windows_are_inside_full_sized_and_cover_every_pixel(height: int, width: int):
    covered = np.zeros((height, width), dtype=int)
    for w in windows(height, width, size=512, stride=341):
        assert 0 <= w.top < w.bottom <= height and 0 <= w.left < w.right <= width
        assert (w.bottom - w.top, w.right - w.left) == (min(512, height), min(512, width))
        covered[w.top : w.bottom, w.left : w.right] += 1
    assert covered.min() >= 1


@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_sliding_gives_the_mean_over_the_windows_that_hold_a_pixel(at_once: int):
    image = torch.randint(0, 256, (3, 40, 70), dtype=torch.uint8)

    def score(crops: torch.Tensor) -> torch.Tensor:
        """A quarter of the resolution; depends on the whole window."""
        return F.avg_pool2d(crops.float(), 4) + crops.float().mean((2, 3), keepdim=True)

    found = slide(image, score, size=32, stride=20, at_once=at_once)
    total, count = torch.zeros(3, 40, 70, dtype=torch.float64), torch.zeros(40, 70)
    for top in (0, 8):
        for left in (0, 20, 38):
            part = image[None, :, top : top + 32, left : left + 32]
            up = F.interpolate(score(part), (32, 32), mode="bilinear")[0]
            total[:, top : top + 32, left : left + 32] += up
            count[top : top + 32, left : left + 32] += 1
    torch.testing.assert_close(found.double(), total / count, atol=1e-3, rtol=1e-6)


def test_the_loss_is_divided_by_all_pixels_ignored_ones_included():
    scores = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    truth = torch.randint(0, 5, (2, 12, 16)).to(torch.uint8)
    truth[:, :6] = 255
    up = F.interpolate(scores, (12, 16), mode="bilinear", align_corners=False).log_softmax(1)
    total = 0.0
    for b in range(2):
        for y in range(6, 12):
            for x in range(16):
                total -= float(up[b, int(truth[b, y, x]), y, x])
    assert float(pixel_loss(scores, truth)) == pytest.approx(total / (2 * 12 * 16))


@pytest.mark.parametrize(
    ("size", "grid", "stride"), [((32, 48), (4, 6), 4), ((30, 30), (5, 7), 3), ((16, 16), (2, 2), 1)]
)
def test_the_mean_of_the_sampled_loss_over_all_offsets_is_the_loss_of_all_pixels(size, grid, stride):
    scores = torch.randn(2, 5, *grid, dtype=torch.float64, requires_grad=True)
    truth = torch.randint(0, 5, (2, *size)).to(torch.uint8)
    truth[0, :3] = 255
    offsets = [(y, x) for y in range(stride) for x in range(stride)]
    sampled = torch.stack(
        [sampled_pixel_loss(scores, truth, stride=stride, offset=offset) for offset in offsets]
    ).mean()
    whole = pixel_loss(scores, truth)
    torch.testing.assert_close(sampled, whole)
    torch.testing.assert_close(torch.autograd.grad(sampled, scores)[0], torch.autograd.grad(whole, scores)[0])


def test_a_loss_without_a_single_counted_pixel_is_zero_and_teaches_nothing():
    scores = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = pixel_loss(scores, torch.full((1, 8, 8), 255, dtype=torch.uint8))
    loss.backward()
    assert float(loss) == 0
    assert scores.grad is not None and not scores.grad.any()


@pytest.mark.parametrize("seed", range(20))
def test_scores_agree_with_a_confusion_matrix_by_hand_and_with_scikit_learn(seed: int):
    g = np.random.default_rng(seed)
    num_classes = int(g.integers(2, 8))
    present = g.choice(num_classes, size=int(g.integers(1, num_classes + 1)), replace=False)
    true = g.choice(present, size=(3, 9, 11)).astype(np.uint8)
    true[g.random(true.shape) < 0.2] = 255
    predicted = g.integers(0, max(num_classes - 1, 1), size=true.shape)  # the last class is never predicted
    table = confusion_by_hand(predicted, true, num_classes)
    images = zip(torch.from_numpy(predicted), torch.from_numpy(true), strict=True)
    added = sum(confusion(p, t, num_classes) for p, t in images)
    counted = true != 255
    flat = true[counted], predicted[counted]
    np.testing.assert_array_equal(added, table)
    np.testing.assert_array_equal(confusion_matrix(*flat, labels=range(num_classes)), table)
    found = segmentation_scores(torch.from_numpy(table))
    ious, accuracies = [], []
    for c in range(num_classes):
        hit, true_c, found_c = table[c, c], table[c].sum(), table[:, c].sum()
        if true_c + found_c - hit:
            ious.append(hit / (true_c + found_c - hit))
        if true_c:
            accuracies.append(hit / true_c)
    assert found["miou"] == pytest.approx(np.mean(ious), abs=1e-12)
    named = sorted(set(flat[0]) | set(flat[1]))
    jaccard = jaccard_score(*flat, labels=named, average="macro", zero_division=0)
    assert found["miou"] == pytest.approx(jaccard, abs=1e-12)
    assert found["mean_class_accuracy"] == pytest.approx(np.mean(accuracies), abs=1e-12)
    assert found["pixel_accuracy"] == pytest.approx(np.trace(table) / table.sum(), abs=1e-12)


def test_a_class_that_is_nowhere_has_no_iou_and_one_that_is_only_predicted_has_zero():
    table = torch.tensor([[4, 0, 1], [0, 0, 0], [0, 0, 0]])
    iou = class_iou(table)
    assert math.isnan(iou[1]) and float(iou[2]) == 0.0 and float(iou[0]) == pytest.approx(0.8)


def test_the_head_is_batch_norm_and_one_linear_layer_a_patch():
    torch.manual_seed(0)
    head = SegmentationHead([6, 4], 5).double()
    read = [TokenMaps(f.cls.double(), f.patches.double()) for f in maps((2, 6, 3, 4), (2, 4, 3, 4))]
    joined = torch.cat([f.patches for f in read], 1)
    mean, var = joined.mean((0, 2, 3)), joined.var((0, 2, 3), unbiased=False)
    normed = (joined - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
    expected = torch.einsum("bdhw,kd->bkhw", normed, head.conv_seg.weight[:, :, 0, 0])
    torch.testing.assert_close(head(read), expected)  # bias 0
    assert float(head.conv_seg.weight.std()) == pytest.approx(0.01, rel=0.3)


def published_head(width: int = 6, num_classes: int = 5) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return {
        "decode_head.conv_seg.weight": torch.randn(num_classes, width, 1, 1, generator=g),
        "decode_head.conv_seg.bias": torch.randn(num_classes, generator=g),
        "decode_head.bn.weight": torch.rand(width, generator=g),
        "decode_head.bn.bias": torch.randn(width, generator=g),
        "decode_head.bn.running_mean": torch.randn(width, generator=g),
        "decode_head.bn.running_var": torch.rand(width, generator=g) + 0.5,
        "decode_head.bn.num_batches_tracked": torch.tensor(7),
    }


LAYOUTS = {
    "mmseg": lambda head: {"meta": {"CLASSES": ["a"]}, "state_dict": head, "optimizer": {"lr": 1.0}},
    "bare": lambda head: head,
    "ddp": lambda head: {"state_dict": {f"module.{name}": tensor for name, tensor in head.items()}},
    "head alone": lambda head: {name.removeprefix("decode_head."): tensor for name, tensor in head.items()},
    "no counter": lambda head: {name: tensor for name, tensor in head.items() if "num_batches" not in name},
    "auxiliary head": lambda head: {**head, "auxiliary_head.conv_seg.weight": torch.ones(2, 2)},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_published_head_is_read_in_every_layout(layout: str, tmp_path: Path):
    state = published_head()
    path = tmp_path / "head.pth"
    torch.save(LAYOUTS[layout](state), path)
    head = read_segmentation_head(read_weights(path), [6], 5, str(path))
    (found,) = maps((2, 6, 3, 4))
    w = {name.removeprefix("decode_head."): tensor.double() for name, tensor in state.items()}
    x = found.patches.double()
    shape = (-1, 1, 1)
    normed = (x - w["bn.running_mean"].view(shape)) / (w["bn.running_var"].view(shape) + 1e-5).sqrt()
    normed = normed * w["bn.weight"].view(shape) + w["bn.bias"].view(shape)
    expected = torch.einsum("bdhw,kd->bkhw", normed, w["conv_seg.weight"][:, :, 0, 0])
    expected += w["conv_seg.bias"].view(shape)
    torch.testing.assert_close(head([found]).double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("widths", "num_classes", "said"),
    [
        ([6], 9, "5 classes apart, this data set has 9"),
        ([8], 5, "width 6, and the encoder gives 8"),
        ([6, 6, 6, 6], 5, "--segmentation.blocks last"),
    ],
)
def test_a_head_for_something_else_is_refused_with_what_it_is_for(widths, num_classes, said, tmp_path: Path):
    path = tmp_path / "head.safetensors"
    save_file(published_head(), path)
    with pytest.raises(WeightsError, match=said):
        read_segmentation_head(read_weights(path), widths, num_classes, str(path))


def test_a_file_that_is_no_head_is_refused(tmp_path: Path):
    path = tmp_path / "encoder.safetensors"
    save_file({"blocks.0.attn.qkv.weight": torch.ones(2, 2)}, path)
    with pytest.raises(WeightsError, match="is no head for segmentation"):
        read_segmentation_head(read_weights(path), [6], 5, str(path))
