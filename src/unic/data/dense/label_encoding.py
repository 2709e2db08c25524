"""How files say what is right for each pixel: masks of classes, and maps of depth. No torch is imported here."""

import colorsys
from dataclasses import dataclass

from unic.core.errors import DataError

IGNORED = 255
"""What masks say, once read, where a pixel counts nowhere."""

_MOST_CLASSES = IGNORED
MOST = 0xFFFF
"""The largest number that a pixel of such a file can hold."""


@dataclass(frozen=True, kw_only=True)
class Masks:
    """How the files of a set say the class of a pixel.

    palette: red, green, blue in 0..255 for each class.
    first: the number in the files that stands for the first class (1 in ADE20K).
    ignored: the numbers in the files that stand for no class.
    """

    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    first: int = 0
    ignored: tuple[int, ...] = (IGNORED,)

    def __post_init__(self) -> None:
        if not 2 <= len(self.classes) <= _MOST_CLASSES:
            raise DataError(f"{len(self.classes)} classes; wanted 2 to {_MOST_CLASSES}")
        if len(self.palette) != len(self.classes):
            raise DataError(f"{len(self.palette)} colours for {len(self.classes)} classes")
        numbers = range(self.first, self.first + len(self.classes))
        if numbers[-1] > MOST:
            raise DataError(f"{numbers[-1]} is the number of the last class; wanted at most {MOST}")
        both = [number for number in self.ignored if number in numbers]
        if both:
            raise DataError(f"{both[0]} is the number of a class and ignored; it can be one of them")


@dataclass(frozen=True, kw_only=True)
class Depths:
    """How the files of a set say the depth of a pixel, and which pixels count.

    scale: units of the files in a metre; 0 in a file is unknown.
    nearest, farthest: metres; what is not between them counts nowhere.
    scored: the rows and columns that test images are judged on: top, bottom, left, right, ends excluded.
    border: the rows and columns that training images are cut to first.
    size: width and height of every image, which rows and columns are counted in; None for a set of many sizes.
    """

    scale: float
    nearest: float
    farthest: float
    scored: tuple[int, int, int, int]
    border: tuple[int, int, int, int]
    size: tuple[int, int] | None = None


def distinct_colours(count: int) -> tuple[tuple[int, int, int], ...]:
    """Hues in steps of the golden section, in nine shades: neighbours in the list differ."""
    colours = []
    for i in range(count):
        rgb = colorsys.hsv_to_rgb(i * 0.618034 % 1, (0.55, 0.8, 1.0)[i % 3], (1.0, 0.75, 0.55)[i // 3 % 3])
        colours.append((round(255 * rgb[0]), round(255 * rgb[1]), round(255 * rgb[2])))
    return tuple(colours)
