"""iNaturalist 2018 and 2019: species of living things, with few images of most of them."""

from functools import partial
from pathlib import Path

from unic.core.errors import DataError
from unic.data.datasets import DATASETS, DatasetSpec
from unic.data.datasets.readers import find_base, listed, read_json
from unic.data.labeled_images import ImageList

# year: (classes, trainval, test)
_SIZES = {2018: (8_142, 437_513, 24_426), 2019: (1_010, 265_213, 3_030)}
_LISTS = {"trainval": "train", "test": "val"}


def read(root: Path, split: str, *, year: int) -> ImageList:
    """An image and its category are joined by the image's id, never by their places in the file."""
    file = f"{_LISTS[split]}{year}.json"
    source = find_base(root, ("",), (f"train{year}.json", f"val{year}.json")) / file
    content = read_json(source, "images", "annotations", "categories")
    try:
        names = {int(category["id"]): str(category["name"]) for category in content["categories"]}
        category_of = {entry["image_id"]: int(entry["category_id"]) for entry in content["annotations"]}
        images = {entry["id"]: str(entry["file_name"]) for entry in content["images"]}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{source}: an entry has no usable {error}") from error
    given = {part: len(content[part]) for part in ("images", "annotations")}
    unlike = images.keys() ^ category_of.keys()
    if unlike or set(given.values()) != {len(images)}:
        raise DataError(
            f"{source}: {given['images']} images and {given['annotations']} annotations, which do not match one to "
            f"one by image_id{f', the first: {min(map(str, unlike))}' if unlike else ''}; get the file anew"
        )
    if sorted(names) != list(range(len(names))):
        raise DataError(f"{source}: categories are not numbered from 0 to {len(names) - 1}")
    labels = [category_of[image] for image in images]
    classes = (names[i] for i in range(len(names)))
    return listed(source.parent, images.values(), labels, classes, name=f"inat{year}", source=source)


for year, (num_classes, trainval, test) in _SIZES.items():
    DATASETS.add(
        f"inat{year}",
        DatasetSpec(
            name=f"inat{year}",
            read=partial(read, year=year),
            splits=("trainval", "test"),
            counts={"trainval": trainval, "test": test},
            layout=f"train{year}.json, val{year}.json, and the images where these say, in train_val{year}/",
            num_classes=num_classes,
            source=f"https://github.com/visipedia/inat_comp/tree/master/{year}",
            licence="non-commercial research and education",
        ),
    )
