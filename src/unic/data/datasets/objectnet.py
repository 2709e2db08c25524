"""ObjectNet: household objects seen from unusual sides in unusual places; the 113 kinds that ImageNet-1K knows.

The published images have a red border of 2 pixels, which is left as it is here.
"""

from pathlib import Path

from unic.core.errors import DataError
from unic.data.datasets import DATASETS, DatasetSpec, Targets, take
from unic.data.datasets.readers import find_base, read_class_folders, read_json, read_lines
from unic.data.labeled_images import ImageList

_FOLDERS = "mappings/folder_to_objectnet_label.json"
_OBJECTS = "mappings/objectnet_to_imagenet_1k.json"
_NUMBERS = "mappings/pytorch_to_imagenet_2012_id.json"
_LABELS = "mappings/imagenet_to_label_2012_v2"


def read(root: Path, split: str) -> ImageList:
    """Classes are the 113 objects, numbered in order of their names; folders of other objects are left out."""
    base = _find(root)
    object_of = {str(key): str(value) for key, value in read_json(base / _FOLDERS).items()}
    objects = sorted(read_json(base / _OBJECTS))
    number = {folder: objects.index(name) if name in objects else -1 for folder, name in object_of.items()}
    images = read_class_folders(base / "images", "objectnet", number, tuple(objects))
    assert images.labels is not None
    return take(images, [i for i, label in enumerate(images.labels.tolist()) if label >= 0])


def targets(root: Path, images: ImageList) -> Targets:
    """An object's answers are its ImageNet classes; the classes of all objects are scored."""
    base = _find(root)
    # A line's number is an id of 2012, which the third file relates to the label of today.
    try:
        label_of = {int(number): int(label) for label, number in read_json(base / _NUMBERS).items()}
    except (TypeError, ValueError) as error:
        raise DataError(f"{base / _NUMBERS}: wanted a number for each number ({error})") from error
    names = {name: label_of.get(i) for i, name in enumerate(read_lines(base / _LABELS))}
    answers = {}
    for thing, classes in read_json(base / _OBJECTS).items():
        labels = [names.get(name) for name in str(classes).split("; ")]
        if None in labels:
            raise DataError(f"{base / _OBJECTS}: {classes!r} of {thing!r} is not all in {base / _LABELS}")
        answers[thing] = tuple(sorted(label for label in labels if label is not None))
    assert images.labels is not None and images.classes is not None
    scored = tuple(sorted({label for labels in answers.values() for label in labels}))
    return Targets(scored, tuple(answers[images.classes[label]] for label in images.labels.tolist()))


def _find(root: Path) -> Path:
    return find_base(root, ("", "objectnet-1.0"), ("images", _FOLDERS, _OBJECTS, _NUMBERS, _LABELS))


DATASETS.add(
    "objectnet",
    DatasetSpec(
        name="objectnet",
        read=read,
        splits=("test",),
        counts={"test": 18_574},
        layout=f"images/<folder>/<image>.png, {_FOLDERS}, {_OBJECTS}, {_NUMBERS} and {_LABELS}, "
        "here or in objectnet-1.0/",
        num_classes=113,
        train_set="in1k",
        targets=targets,
        source="https://objectnet.dev (the password of the archive is on that page)",
        licence="CC BY 4.0; never to be used for tuning a model",
    ),
)
