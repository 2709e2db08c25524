"""What dense tasks share: which crops make up a step, features on disk, learning that survives a kill."""

import itertools
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from unic.core.errors import DataError
from unic.data.labeled_images import ImageList
from unic.evals.dense import train_head as training
from unic.evals.dense.crop_batches import CropSpec, keys_of_step
from unic.evals.dense.crop_feature_store import Packing
from unic.evals.dense.train_head import Schedule, train_head
from unic.method.types import TokenMaps


def test_every_image_comes_once_an_epoch_whatever_the_batch():
    keys = [key for step in range(35) for key in keys_of_step(step, batch=4, num_images=7, seed=0)]
    assert Counter(number for _, number in keys) == dict.fromkeys(range(20), 7)
    for _, epoch in itertools.groupby(keys, key=lambda key: key[1]):
        assert sorted(position for position, _ in epoch) == list(range(7))
    orders = [[position for position, number in keys if number == epoch] for epoch in range(3)]
    assert orders[0] != orders[1]


def test_stored_crops_are_the_first_ones_of_those_made_afresh_and_then_come_again():
    afresh = [keys_of_step(step, 5, 10, seed=3) for step in range(8)]
    stored = [keys_of_step(step, 5, 10, seed=3, num_views=2) for step in range(8)]
    assert stored[:4] == afresh[:4]
    assert [[position for position, _ in keys] for keys in stored] == [
        [p for p, _ in keys] for keys in afresh
    ]
    assert {number for keys in stored for _, number in keys} == {0, 1}


def some_maps() -> list[TokenMaps]:
    g = torch.Generator().manual_seed(0)
    patches = torch.randn(3, 5, 2, 4, generator=g) * torch.tensor([1e-3, 1.0, 50.0]).view(3, 1, 1, 1)
    patches[:, 0] *= 100  # a dimension far larger than the others
    return [
        TokenMaps(torch.randn(3, 6, generator=g), patches),
        TokenMaps(torch.zeros(3, 2), torch.zeros(3, 1, 1, 1)),
    ]


@pytest.mark.parametrize(("bits", "relative"), [("bf16", 2**-8), ("fp8", 2**-4)])
def test_packed_features_come_back_to_the_precision_of_their_format(bits, relative: float):
    maps = some_maps()
    truth = torch.arange(3 * 8 * 8).reshape(3, 8, 8).to(torch.uint8)
    packing = Packing(
        tuple((m.cls.shape[1], tuple(m.patches.shape[1:])) for m in maps), (8, 8), torch.uint8, bits
    )
    rows = packing.pack(maps, truth)
    assert rows.shape == (3, packing.row_bytes)
    found, back = packing.unpack(rows[[2, 0]], torch.device("cpu"))
    torch.testing.assert_close(back, truth[[2, 0]])
    for read, written in zip(found, maps, strict=True):
        torch.testing.assert_close(read.cls, written.cls[[2, 0]], rtol=2**-8, atol=0)
        largest = float(written.patches.abs().max())
        torch.testing.assert_close(read.patches, written.patches[[2, 0]], rtol=relative, atol=1e-5 * largest)


def test_fp8_takes_half_the_room_of_bf16():
    layers = ((8, (64, 16, 16)),)
    fp8, bf16 = (Packing(layers, (2, 2), torch.uint8, bits).row_bytes for bits in ("fp8", "bf16"))
    assert bf16 - fp8 == 64 * 16 * 16


def batches(start: int, steps: int = 30):
    for step in range(start, steps):
        g = torch.Generator().manual_seed(step)
        patches = torch.randn(4, 3, 2, 2, generator=g)
        yield [TokenMaps(patches.mean((2, 3)), patches)], (patches.sum(1) > 0).to(torch.uint8)


class KilledError(Exception):
    pass


def killed(steps: int, start: int):
    yield from itertools.islice(batches(start), steps)
    raise KilledError


def recorded(starts: list[int], start: int):
    starts.append(start)
    return batches(start)


def head_and_loss() -> tuple[nn.Module, training.Callable]:
    torch.manual_seed(0)
    head = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1))

    def loss(maps: list[TokenMaps], truth: torch.Tensor, step: int) -> torch.Tensor:
        return nn.functional.cross_entropy(head(maps[0].patches), truth.long())

    return head, loss


SCHEDULE = Schedule(steps=30, rate=lambda step: 0.1 * (1 - step / 30), weight_decay=1e-4)


def test_learning_that_was_killed_ends_with_the_same_head_as_one_that_was_not(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(training, "SECONDS_BETWEEN_NOTES", 0.0)
    whole, loss = head_and_loss()
    train_head(whole, batches, loss, SCHEDULE, what="whole", notes=None)
    cut, loss = head_and_loss()

    with pytest.raises(KilledError):
        train_head(cut, partial(killed, 12), loss, SCHEDULE, what="cut", notes=tmp_path / "notes")
    again, loss = head_and_loss()
    starts: list[int] = []
    train_head(again, partial(recorded, starts), loss, SCHEDULE, what="again", notes=tmp_path / "notes")
    assert starts == [12]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert not list((tmp_path / "notes").glob("step-*"))


def test_a_damaged_note_is_not_used(tmp_path: Path, monkeypatch, caplog):
    monkeypatch.setattr(training, "SECONDS_BETWEEN_NOTES", 0.0)
    cut, loss = head_and_loss()
    with pytest.raises(KilledError):
        train_head(cut, partial(killed, 5), loss, SCHEDULE, what="cut", notes=tmp_path)
    (note,) = tmp_path.glob("step-*")
    file = note / "tensors.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    again, loss = head_and_loss()
    starts: list[int] = []
    train_head(again, partial(recorded, starts), loss, SCHEDULE, what="again", notes=tmp_path)
    assert starts == [0]


def test_a_loss_that_is_not_finite_ends_learning_with_a_sentence():
    head, _ = head_and_loss()
    one_step = Schedule(steps=1, rate=lambda step: 0.1, weight_decay=0.0)
    nan = lambda maps, truth, step: head(maps[0].patches).sum() * float("nan")  # noqa: E731
    with pytest.raises(DataError, match="the loss is nan at step 0"):
        train_head(head, lambda start: batches(start, 1), nan, one_step, what="encoder  set", notes=None)


def cut_block(image: str, truth: str, draws: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    if image == "bad":
        raise DataError(f"{truth}: no such mask")
    height = int(draws.integers(1, 5))
    return torch.full((3, height, 3), int(image), dtype=torch.uint8), torch.ones(height, 3, dtype=torch.uint8)


def cutting(*names: str) -> CropSpec:
    images = ImageList(names, maps=tuple(f"mask {name}" for name in names), name="set")
    return CropSpec(
        images=images, cut=cut_block, size=(4, 4), beyond=255, truth_dtype=torch.uint8, seed=0, facts={}
    )  # fmt: skip


@pytest.mark.parametrize("workers", [0, 2])
def test_crops_lie_at_the_top_left_and_the_rest_counts_nowhere(workers: int):
    keys = [[(0, 0), (1, 0)], [(1, 1), (0, 5)]]
    found = list(cutting("10", "20").views(range(2), keys.__getitem__, workers=workers, pin_memory=False))
    assert len(found) == 2
    for views, asked in zip(found, keys, strict=True):
        for pixels, inside, truth, (position, _) in zip(
            views.pixels, views.inside, views.truth, asked, strict=True
        ):
            height, width = inside.tolist()
            assert width == 3 and (pixels[:, :height, :width] == (10, 20)[position]).all()
            assert (
                pixels[:, height:].sum() == 0
                and (truth[height:] == 255).all()
                and (truth[:, width:] == 255).all()
            )


@pytest.mark.parametrize("workers", [0, 1])
def test_what_cannot_be_read_is_named(workers: int):
    with pytest.raises(DataError, match="mask bad: no such mask"):
        list(cutting("bad").views(range(1), lambda number: [(0, 0)], workers=workers, pin_memory=False))
