"""ADE20K as the scene-parsing challenge of 2016 published it: 150 classes."""

from pathlib import Path

from unic.data.datasets import DATASETS, DatasetSpec
from unic.data.datasets.readers import find_base, with_masks
from unic.data.dense.label_encoding import IGNORED, Masks, distinct_colours
from unic.data.labeled_images import ImageList

_PARTS = ("training", "validation")

# The first name of each class in objectInfo150.txt, in its order.
_CLASSES = """
wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth,
door, table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug,
field, armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column,
signboard, chest of drawers, counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, path,
stairs, runway, case, pool table, pillow, screen door, stairway, river, bridge, bookcase, blind, coffee
table, toilet, flower, book, hill, bench, countertop, stove, palm, kitchen island, computer, swivel chair,
boat, bar, arcade machine, hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight, booth,
television receiver, airplane, dirt track, apparel, pole, land, bannister, escalator, ottoman, bottle,
buffet, poster, stage, van, ship, fountain, conveyer belt, canopy, washer, plaything, swimming pool, stool,
barrel, basket, waterfall, tent, bag, minibike, cradle, oven, ball, food, step, tank, trade name, microwave,
pot, animal, bicycle, lake, dishwasher, screen, blanket, sculpture, hood, sconce, vase, traffic light, tray,
ashcan, fan, pier, crt screen, plate, monitor, bulletin board, shower, radiator, glass, clock, flag
"""
# Split and joined: a name may go over the end of a line.
CLASSES = tuple(" ".join(name.split()) for name in _CLASSES.split(","))


def read(root: Path, split: str) -> ImageList:
    folders = [f"{kind}/{part}" for kind in ("images", "annotations") for part in _PARTS]
    base = find_base(root, ("", "ADEChallengeData2016"), folders)
    return with_masks(base / "images" / split, base / "annotations" / split, "ade20k", CLASSES, base)


def masks(root: Path) -> Masks:
    """0 in the files is "other", which counts nowhere."""
    return Masks(classes=CLASSES, palette=distinct_colours(len(CLASSES)), first=1, ignored=(0, IGNORED))


DATASETS.add(
    "ade20k",
    DatasetSpec(
        name="ade20k",
        read=read,
        splits=_PARTS,
        counts={"training": 20_210, "validation": 2_000},
        layout="images/{training,validation}/*.jpg and annotations/{training,validation}/*.png, here or in "
        "ADEChallengeData2016/",
        num_classes=150,
        masks=masks,
        source="http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
    ),
)
