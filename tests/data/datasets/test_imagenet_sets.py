"""ImageNet-1K and the sets that are judged with its classifier."""

import json
import os
from pathlib import Path

import miniatures
import numpy as np
import pytest
from miniatures import read, touch

from unic.core.errors import DataError
from unic.data.datasets import DATASETS, read_split, read_targets

# A folder with val/<wnid>/<wnid>_<name>.JPEG, one photograph for each of 200 classes.
PHOTOGRAPHS = Path(os.environ.get("UNIC_TEST_IMAGENET200", "/no folder named"))
# Of the official list of classes: 0 tench, 1 goldfish, 15 robin, 999 toilet tissue.
TENCH, GOLDFISH, ROBIN, TISSUE = "n01440764", "n01443537", "n01558993", "n15075141"
ROBUSTNESS = [name for name in DATASETS if DATASETS[name].train_set]


def test_labels_are_those_of_all_1000_classes_when_most_folders_are_missing(tmp_path: Path):
    touch(tmp_path, [f"train/{TISSUE}/{TISSUE}_1.JPEG", f"train/{GOLDFISH}/{GOLDFISH}_5.JPEG"])
    touch(tmp_path, [f"val/{GOLDFISH}/ILSVRC2012_val_00000009.JPEG"])
    assert read("in1k", tmp_path, "trainval") == [
        (f"train/{GOLDFISH}/{GOLDFISH}_5.JPEG", 1),
        (f"train/{TISSUE}/{TISSUE}_1.JPEG", 999),
    ]
    assert read("in1k", tmp_path, "test") == [(f"val/{GOLDFISH}/ILSVRC2012_val_00000009.JPEG", 1)]
    assert len(DATASETS["in1k"].read(tmp_path, "test").classes or ()) == 1000


def letters(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter.isalpha())


@pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason="UNIC_TEST_IMAGENET200 names no folder")
def test_a_folder_of_200_classes_keeps_imagenets_labels():
    spec = DATASETS["in1k"]
    with pytest.raises(DataError, match=r"in1k, test: 200 images in .*, expected 50000"):
        read_split(spec, PHOTOGRAPHS, "test")
    images = read_split(spec, PHOTOGRAPHS, "test", allow_count_mismatch=True)
    assert images.labels is not None and images.classes is not None
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    assert len(images) == 200
    for path, label in zip(images.paths, images.labels.tolist(), strict=True):
        assert Path(path).parent.name == images.classes[label] == info.index_to_label_name(label)
        name = Path(path).stem.split("_", 1)[1]  # "n01440764_tench"
        assert letters(name) in letters(info.index_to_description(label))


@pytest.mark.parametrize(
    ("folder", "sentence"), [("cats", "'cats' is no class of in1k"), ("", "'1.JPEG' is no")]
)
def test_a_folder_that_is_no_class_is_named(folder: str, sentence: str, tmp_path: Path):
    touch(tmp_path / "val" / folder, ["1.JPEG"])
    touch(tmp_path / "val" / TENCH, ["2.JPEG"])
    with pytest.raises(DataError, match=sentence + ".*wanted folders of classes such as n01440764"):
        DATASETS["in1k"].read(tmp_path, "test")


def test_a_folder_without_images_is_named(tmp_path: Path):
    touch(tmp_path, [f"val/{TENCH}/notes.txt"])
    with pytest.raises(DataError, match="/val: no image in this folder or below"):
        DATASETS["in1k"].read(tmp_path, "test")
    with pytest.raises(DataError, match="/train: no such folder"):
        DATASETS["in1k"].read(tmp_path, "trainval")


@pytest.mark.parametrize("name", ROBUSTNESS)
def test_sets_for_testing_have_one_part_and_name_the_set_their_classifier_learned_from(name: str):
    spec = DATASETS[name]
    assert spec.splits == ("test",) and list(spec.counts) == ["test"]
    assert spec.train_set == "in1k" and spec.train_set in DATASETS


@pytest.mark.parametrize("place", ["", "imagenetv2-matched-frequency-format-val"])
def test_folders_of_imagenet_v2_are_numbers_not_ranks(place: str, tmp_path: Path):
    touch(tmp_path / place, ["10/a.jpeg", "2/b.jpeg", "999/c.jpeg"])
    found = read("imagenetv2", tmp_path, "test")
    assert [label for _, label in found] == [10, 2, 999]
    images = DATASETS["imagenetv2"].read(tmp_path, "test")
    assert (images.classes or ())[999] == TISSUE
    targets = read_targets(DATASETS["imagenetv2"], tmp_path, images)
    assert targets.scored == tuple(range(1000))
    assert targets.answers == ((10,), (2,), (999,))
    touch(tmp_path / place, ["1000/d.jpeg"])
    with pytest.raises(DataError, match="'1000' is no class of imagenetv2"):
        DATASETS["imagenetv2"].read(tmp_path, "test")


@pytest.mark.parametrize("place", ["", "sketch"])
def test_sketches_have_imagenets_labels(place: str, tmp_path: Path):
    touch(tmp_path / place, [f"{TISSUE}/sketch_0.JPEG", f"{TENCH}/sketch_3.JPEG"])
    assert [label for _, label in read("sketch", tmp_path, "test")] == [0, 999]


# Goldfish are in -R and not in -A, robins in -A and not in -R.
@pytest.mark.parametrize(
    ("name", "folder", "inside", "label", "outside"),
    [
        ("imagenet_r", "imagenet-r", GOLDFISH, 1, ROBIN),
        ("imagenet_a", "imagenet-a", ROBIN, 15, GOLDFISH),
    ],
)
@pytest.mark.parametrize("below", [False, True])
def test_sets_of_200_classes_are_scored_among_these(
    name: str, folder: str, inside: str, label: int, outside: str, below: bool, tmp_path: Path
):
    base = tmp_path / folder if below else tmp_path
    touch(base, [f"{inside}/art_0.jpg", "README.txt"])
    images = DATASETS[name].read(tmp_path, "test")
    assert images.labels is not None and images.labels.tolist() == [label]
    targets = read_targets(DATASETS[name], tmp_path, images)
    assert targets.answers == ((label,),)
    assert len(targets.scored) == 200 and list(targets.scored) == sorted(set(targets.scored))
    assert label in targets.scored
    touch(base, [f"{outside}/art_0.jpg"])
    with pytest.raises(DataError, match=f"'{outside}' is no class of {name}"):
        DATASETS[name].read(tmp_path, "test")


def test_the_lists_of_labels_and_of_wnids_of_the_200_classes_agree(tmp_path: Path):
    """timm ships both; readers use the first."""
    from unic.data.datasets.wordnet_ids import class_subset, timm_facts, wnids

    for name in ("imagenet_r", "imagenet_a"):
        assert [wnids()[label] for label in class_subset(name)] == timm_facts(f"{name}_synsets.txt").split()


def test_real_labels_are_several_and_images_without_any_are_left_out(tmp_path: Path):
    # The published lists begin [[], [970, 795], [230, 231], [809], ...].
    touch(tmp_path, [f"val/{TENCH}/ILSVRC2012_val_{i:08d}.JPEG" for i in (1, 2, 3, 4)])
    images = DATASETS["imagenet_real"].read(tmp_path, "test")
    assert [Path(path).name for path in images.paths] == [
        f"ILSVRC2012_val_0000000{i}.JPEG" for i in (2, 3, 4)
    ]
    assert images.labels is not None and images.labels.tolist() == [0, 0, 0]  # ImageNet's own
    targets = read_targets(DATASETS["imagenet_real"], tmp_path, images)
    assert targets.answers == ((970, 795), (230, 231), (809,))
    assert len(targets.scored) == 1000


def test_the_count_of_real_labels_is_that_of_the_images_that_have_some():
    from unic.data.datasets.wordnet_ids import timm_facts

    labels = json.loads(timm_facts("imagenet_real_labels.json"))
    assert DATASETS["imagenet_real"].counts["test"] == sum(bool(of_image) for of_image in labels)


def test_real_labels_need_the_names_of_imagenet(tmp_path: Path):
    touch(tmp_path, [f"val/{TENCH}/tench.JPEG"])
    with pytest.raises(DataError, match=r"tench.JPEG: wanted ImageNet's own name"):
        DATASETS["imagenet_real"].read(tmp_path, "test")


def objectnet(root: Path) -> Path:
    """Three kinds of object, of which ImageNet knows two; ids of 2012 are the labels of today backwards."""
    touch(
        root,
        ["images/alarm_clock/1.png", "images/alarm_clock/2.png", "images/mug/1.png", "images/t_shirt/1.png"],
    )
    return miniatures.write(
        root,
        {
            "mappings/folder_to_objectnet_label.json": json.dumps(
                {"alarm_clock": "Alarm clock", "mug": "Mug", "t_shirt": "T-shirt"}
            ),
            "mappings/objectnet_to_imagenet_1k.json": json.dumps(
                {"T-shirt": "jersey, T-shirt, tee shirt", "Alarm clock": "digital clock; analog clock"}
            ),
            "mappings/pytorch_to_imagenet_2012_id.json": json.dumps({str(i): 999 - i for i in range(1000)}),
            "mappings/imagenet_to_label_2012_v2": "analog clock\njersey, T-shirt, tee shirt \ndigital clock\n",
        },
    )


@pytest.mark.parametrize("place", ["", "objectnet-1.0"])
def test_an_object_has_the_labels_of_all_its_imagenet_classes(place: str, tmp_path: Path):
    objectnet(tmp_path / place)
    expected = [("images/alarm_clock/1.png", 0), ("images/alarm_clock/2.png", 0), ("images/t_shirt/1.png", 1)]
    assert read("objectnet", tmp_path / place, "test") == expected
    images = DATASETS["objectnet"].read(tmp_path, "test")
    assert images.classes == ("Alarm clock", "T-shirt")
    targets = read_targets(DATASETS["objectnet"], tmp_path, images)
    assert targets.scored == (997, 998, 999)
    assert targets.answers == ((997, 999), (997, 999), (998,))


def test_the_best_of_an_objects_classes_decides(tmp_path: Path):
    """Targets say the same as a score for each object, the highest one of its classes."""
    objectnet(tmp_path)
    images = DATASETS["objectnet"].read(tmp_path, "test")
    targets = read_targets(DATASETS["objectnet"], tmp_path, images)
    scores = np.random.default_rng(0).normal(size=(200, 1000))
    objects = np.stack([scores[:, [997, 999]].max(1), scores[:, 998]], axis=1).argmax(1)
    predictions = np.array(targets.scored)[scores[:, targets.scored].argmax(1)]
    for label, answers in ((0, targets.answers[0]), (1, targets.answers[2])):
        assert ((objects == label) == np.isin(predictions, answers)).all()


def test_an_unknown_class_in_the_mappings_of_objectnet_is_named(tmp_path: Path):
    objectnet(tmp_path)
    (tmp_path / "mappings/imagenet_to_label_2012_v2").write_text("analog clock\ndigital clock\n")
    images = DATASETS["objectnet"].read(tmp_path, "test")
    with pytest.raises(DataError, match="'jersey, T-shirt, tee shirt' of 'T-shirt' is not all in"):
        read_targets(DATASETS["objectnet"], tmp_path, images)
    (tmp_path / "mappings/imagenet_to_label_2012_v2").unlink()
    with pytest.raises(DataError, match="no 'mappings/imagenet_to_label_2012_v2' here"):
        DATASETS["objectnet"].read(tmp_path, "test")
