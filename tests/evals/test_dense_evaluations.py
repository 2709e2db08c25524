"""Segmentation and depth from image files to numbers, on miniatures of the real layouts."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer

from unic.core.errors import ConfigError, DataError, WeightsError
from unic.core.results import Result
from unic.data.datasets import DATASETS, DatasetSpec, Roots
from unic.data.dense.read_annotations import Depths
from unic.evals.dense import crop_feature_store, train_head
from unic.evals.dense.frozen_backbone import FrozenBackbone
from unic.evals.evaluate import evaluate
from unic.evals.protocols.depth import DepthConfig
from unic.evals.protocols.segmentation import SegmentationConfig
from unic.evals.registry import EVALUATIONS, EvalOptions, options_type
from unic.models.timm_encoder import TimmEncoder

CPU = torch.device("cpu")
SEGMENTATION = SegmentationConfig(steps=60, batch=4, size=32, views=3, lr=0.05, stride=2, panels=2)
DEPTH = DepthConfig(steps=90, batch=2, views=2, crop=(32, 48), lr=0.1, panels=1)


@pytest.fixture
def encoder() -> TimmEncoder:
    torch.manual_seed(0)
    model = VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=4, num_heads=2, num_classes=0)
    return TimmEncoder(model, name="tiny", image_size=32).eval().requires_grad_(False)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def fields(seed: int, height: int, width: int, side: int = 16) -> np.ndarray:
    """0 or 1 for each pixel, in squares."""
    small = np.random.default_rng(seed).integers(0, 2, (-(-height // side), -(-width // side)))
    return small.repeat(side, 0).repeat(side, 1)[:height, :width]


@pytest.fixture
def ade(tmp_path: Path) -> Path:
    """Bright is wall (1), dark is sky (3), the first rows are no class."""
    base = tmp_path / "ADEChallengeData2016"
    for part, short, count in (("training", "train", 6), ("validation", "val", 3)):
        for i in range(count):
            bright = fields(10 * len(short) + i, 40, 64)
            name = f"ADE_{short}_{i:08}"
            noise = np.random.default_rng(i).integers(0, 20, (40, 64, 3))
            save(base / "images" / part / f"{name}.jpg", (bright[..., None] * 200 + noise).astype(np.uint8))
            mask = np.where(bright, 1, 3).astype(np.uint8)
            mask[:2] = 0
            save(base / "annotations" / part / f"{name}.png", mask)
    return tmp_path


@pytest.fixture
def rooms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A data set like nyud, of small pictures: bright is 2 m away, dark 6 m."""
    lines: dict[str, list[str]] = {"train": [], "test": []}
    for part, count in (("train", 4), ("test", 2)):
        for i in range(count):
            bright = fields(len(part) * 10 + i, 48, 64)
            save(
                tmp_path / "rooms" / f"{part}{i}.jpg", (bright[..., None] * np.full(3, 220)).astype(np.uint8)
            )
            save(tmp_path / "rooms" / f"{part}{i}.png", np.where(bright, 2000, 6000).astype(np.uint16))
            lines[part].append(f"/rooms/{part}{i}.jpg /rooms/{part}{i}.png 518.8")
        (tmp_path / f"nyu_{part}.txt").write_text("\n".join(lines[part]))
    small = Depths(scale=1000.0, nearest=1e-3, farthest=10.0, scored=(4, 44, 4, 60), border=(2, 46, 2, 62))
    spec: DatasetSpec = DATASETS["nyud"]
    monkeypatch.setitem(DATASETS._entries, "nyud", dataclasses.replace(spec, depths=lambda root: small))
    return "nyud"


def run(encoder, dataset: str, root: Path, cache: Path | None, **settings) -> list[Result]:
    options = options_type()(workers=0, allow_count_mismatch=True, **settings)
    task = DATASETS[dataset].task
    return evaluate(encoder, dataset, Roots(root), [task], options, cache=cache, device=CPU)


def numbers(results: list[Result]) -> dict[str, float]:
    return {result.metric: result.value for result in results}


@pytest.mark.parametrize("mode", ["fast", "exact"])
def test_a_head_learns_to_segment_and_says_how_it_was_measured(encoder, ade: Path, tmp_path: Path, mode):
    config = dataclasses.replace(SEGMENTATION, mode=mode)
    results = run(encoder, "ade20k", ade, tmp_path / "cache", segmentation=config)
    found = numbers(results)
    assert list(found) == ["miou", "mean_class_accuracy", "pixel_accuracy"]
    assert found["pixel_accuracy"] > 75 and found["miou"] > 55  # a guess has 50 and 33
    first = results[0]
    facts = first.dataset, first.evaluation, first.unit, first.higher_is_better
    assert facts == ("ade20k", "segmentation", "%", True)
    assert first.protocol.startswith("segmentation-1")
    assert ("fast views=3 fp8" in first.protocol and "stride=2" in first.protocol) is (mode == "fast")
    assert "steps=60" in first.protocol and "size=32" in first.protocol
    (panels,) = (tmp_path / "cache" / "heads").glob("*-panels")
    pictures = sorted(panels.glob("*.png"))
    assert len(pictures) == 2
    assert Image.open(pictures[0]).size == (3 * 64 + 2 * 8, 40)
    classes = json.loads((panels / "tiny.json").read_text())
    assert len(classes) == 150
    assert {entry["class"]: entry["iou"] for entry in classes if entry["pixels"]}.keys() == {"wall", "sky"}


def test_the_second_time_nothing_is_learned_and_the_numbers_are_the_same(
    encoder, ade, tmp_path, monkeypatch, caplog
):
    caplog.set_level("INFO", "unic")
    first = run(encoder, "ade20k", ade, tmp_path / "cache", segmentation=SEGMENTATION)
    monkeypatch.setattr(train_head, "train_head", None)
    monkeypatch.setattr(crop_feature_store, "_compute", None)
    second = run(encoder, "ade20k", ade, tmp_path / "cache", segmentation=SEGMENTATION)
    assert numbers(first) == numbers(second)
    assert "head from the cache" in caplog.text


def test_a_kept_head_can_be_named_and_gives_the_same_numbers(encoder, ade, tmp_path):
    learned = run(encoder, "ade20k", ade, tmp_path / "cache", segmentation=SEGMENTATION)
    (file,) = (tmp_path / "cache" / "heads").glob("*/tensors.safetensors")
    assert "decode_head.conv_seg.weight" in load_file(file)
    read = run(encoder, "ade20k", ade, None, segmentation=SEGMENTATION, head=file)
    assert numbers(read) == numbers(learned)
    assert read[0].protocol.startswith("segmentation-1 head=") and "steps" not in read[0].protocol
    with pytest.raises(WeightsError, match="no linear head for depth"):
        run(encoder, "nyud", _two_rooms(tmp_path), None, depth=DEPTH, head=file)


def _two_rooms(root: Path) -> Path:
    save(root / "r.jpg", np.zeros((480, 640, 3), np.uint8))
    save(root / "r.png", np.full((480, 640), 1000, np.uint16))
    for part in ("train", "test"):
        (root / f"nyu_{part}.txt").write_text("r.jpg r.png 500")
    return root


def test_fast_is_exact_where_no_crop_comes_twice_and_every_pixel_counts(encoder, ade, tmp_path):
    """6 images and 3 crops of each last for 18 / 4 steps; 16 bits are all that is between them then."""
    heads = []
    for mode in ("fast", "exact"):
        config = dataclasses.replace(SEGMENTATION, mode=mode, steps=4, stride=1, bits="bf16", lr=1e-3)
        run(encoder, "ade20k", ade, tmp_path / mode, segmentation=config)
        (file,) = (tmp_path / mode / "heads").glob("*/tensors.safetensors")
        heads.append(load_file(file))
    for name, tensor in heads[0].items():
        torch.testing.assert_close(tensor, heads[1][name], atol=2e-3, rtol=1e-2, msg=name)


def test_an_extraction_that_was_cut_short_goes_on_where_it_was(encoder, ade, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "unic")
    monkeypatch.setattr(crop_feature_store, "_BYTES_PER_SHARD", 4_000)
    whole = run(encoder, "ade20k", ade, tmp_path / "whole", segmentation=SEGMENTATION)
    add, calls = crop_feature_store.OnDisk.add, []

    def stopping(self, shard, rows):
        calls.append(shard)
        if len(calls) == 4:
            raise KeyboardInterrupt
        add(self, shard, rows)

    monkeypatch.setattr(crop_feature_store.OnDisk, "add", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(encoder, "ade20k", ade, tmp_path / "cut", segmentation=SEGMENTATION)
    monkeypatch.setattr(crop_feature_store.OnDisk, "add", add)
    caplog.clear()
    again = run(encoder, "ade20k", ade, tmp_path / "cut", segmentation=SEGMENTATION)
    assert numbers(again) == numbers(whole)
    total = 18
    assert f"{total - sum(map(len, calls[:3]))} crops in" in caplog.text


def test_a_changed_mask_changes_the_hash_and_nothing_old_is_used(encoder, ade, tmp_path):
    before = run(encoder, "ade20k", ade, tmp_path / "cache", segmentation=SEGMENTATION)
    masks = sorted((ade / "ADEChallengeData2016" / "annotations" / "training").iterdir())
    for path in masks:
        save(path, np.full((40, 64), 4, np.uint8) - (np.asarray(Image.open(path)) == 3))
    after = run(encoder, "ade20k", ade, tmp_path / "cache", segmentation=SEGMENTATION)
    assert numbers(after)["miou"] < numbers(before)["miou"]


@pytest.mark.parametrize("blocks", ["last", "last4"])
def test_several_scales_and_mirrored_images_are_averaged(encoder, ade, tmp_path, blocks):
    config = dataclasses.replace(SEGMENTATION, scales=(1.0, 1.5), flip=True, blocks=blocks, steps=30)
    results = run(encoder, "ade20k", ade, tmp_path / "cache", segmentation=config)
    assert "scales=1.0,1.5" in results[0].protocol and "flip=True" in results[0].protocol
    assert numbers(results)["pixel_accuracy"] > 55


@pytest.mark.parametrize("mode", ["fast", "exact"])
def test_a_head_learns_depth(encoder, rooms: str, tmp_path: Path, mode):
    results = run(encoder, rooms, tmp_path, tmp_path / "cache", depth=dataclasses.replace(DEPTH, mode=mode))
    found = numbers(results)
    assert list(found) == ["rmse", "abs_rel", "sq_rel", "log10", "rmse_log", "silog", "d1", "d2", "d3"]
    assert found["rmse"] < 1.9  # always 4 m gives 2.0
    by_name = {result.metric: result for result in results}
    assert by_name["rmse"].unit == "m"
    assert by_name["d1"].higher_is_better and not by_name["rmse"].higher_is_better
    (panels,) = (tmp_path / "cache" / "heads").glob("*-panels")
    assert [Image.open(path).size for path in panels.glob("*.png")] == [(3 * 64 + 2 * 8, 48)]


def test_depth_from_four_blocks(encoder, rooms: str, tmp_path: Path):
    config = dataclasses.replace(DEPTH, blocks="four", steps=30)
    results = run(encoder, rooms, tmp_path, tmp_path / "cache", depth=config)
    assert "blocks=four" in results[0].protocol and numbers(results)["rmse"] < 4


def test_encoders_are_frozen_and_never_skip_a_block_whatever_their_mode(encoder):
    """The reference evaluated with drop path on, and built a graph through the encoder."""
    drop = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=32, depth=4, num_heads=2, num_classes=0, drop_path_rate=0.9
    )
    drop.load_state_dict(encoder.model.state_dict())
    training = TimmEncoder(drop, name="tiny", image_size=32).train()
    images = torch.randint(0, 256, (2, 3, 40, 48), dtype=torch.uint8)
    first, second, plain = (
        FrozenBackbone(which, (-1,), True, CPU, "fp32")(images)[0] for which in (training, training, encoder)
    )
    assert torch.equal(first.patches, second.patches)
    torch.testing.assert_close(first.patches, plain.patches)
    assert all(module.training for module in training.modules())
    assert not first.patches.requires_grad and not first.patches.is_inference()


def test_beyond_the_picture_there_is_zero_after_normalisation(encoder):
    seen = FrozenBackbone(encoder, (-1,), True, CPU, "fp32")
    images = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    pixels = encoder.normalize(images)
    pixels[:, :, 20:], pixels[:, :, :, 24:] = 0, 0
    expected = encoder.at_size(32, 32).maps(pixels)[0].patches
    torch.testing.assert_close(seen(images, torch.tensor([[20, 24]]))[0].patches, expected)


def test_without_a_cache_nothing_is_left_behind(encoder, ade, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    results = run(encoder, "ade20k", ade, None, segmentation=dataclasses.replace(SEGMENTATION, steps=3))
    assert len(results) == 3 and not list((tmp_path / "scratch").iterdir())


def test_a_disk_without_room_is_known_before_anything_is_computed(encoder, ade, tmp_path, monkeypatch):
    monkeypatch.setattr(crop_feature_store, "_FREE_BYTES", 2**60)
    with pytest.raises(
        ConfigError, match=r"features of 18 crops take .* GB and .* has .* GB free; take fewer views"
    ):
        run(encoder, "ade20k", ade, tmp_path / "cache", segmentation=SEGMENTATION)


def test_a_mask_that_is_wrong_is_named_in_either_part(encoder, ade, tmp_path):
    config = dataclasses.replace(SEGMENTATION, steps=6)
    for part, number in (("validation", 200), ("training", 201)):
        path = sorted((ade / "ADEChallengeData2016" / "annotations" / part).iterdir())[-1]
        save(path, np.full((40, 64), number, np.uint8))
        with pytest.raises(DataError, match=f"{path}: the number {number}"):
            run(encoder, "ade20k", ade, tmp_path / "cache", segmentation=config)


@pytest.mark.parametrize(
    ("dataset", "evals", "said"),
    [
        (
            "ade20k",
            ["knn"],
            r"ade20k is for segmentation, and knn is not; possible: segmentation \(--evals\)",
        ),
        ("nyud", ["segmentation"], "nyud is for depth, and segmentation is not"),
        ("dtd", ["depth", "knn"], "dtd is for classification, and depth is not; possible: knn"),
        ("nyud", [], "no evaluation named for nyud; possible: depth"),
    ],
)
def test_an_evaluation_for_other_data_is_refused(encoder, tmp_path, dataset, evals, said):
    with pytest.raises(ConfigError, match=said):
        evaluate(encoder, dataset, Roots(tmp_path), evals, EvalOptions(), cache=None, device=CPU)


@pytest.mark.parametrize(
    "values", [{"steps": 0}, {"batch": 0}, {"views": 0}, {"lr": 0.0}, {"size": 0}, {"stride": 600}, {"scales": ()},
               {"panels": -1}, {"at_once": 0}]
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(values: dict):
    with pytest.raises(ConfigError, match=r"expected|is more than"):
        SegmentationConfig(**values)
    assert EVALUATIONS["segmentation"].task == "segmentation"
