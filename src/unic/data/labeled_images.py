"""Image files by name, with the class of each and its identity.

Letters: N images.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64


@dataclass(frozen=True, eq=False)
class ImageList:
    """Image files, and the class of each one when they have classes.

    paths: absolute.
    labels: positions in `classes`.
    root: the folder that `identity` leaves out of the paths, so that a moved data set stays itself.
    maps: for each image the file that says what is right for its pixels, a mask or a map of depth.
    """

    paths: tuple[str, ...]
    labels: Int64[np.ndarray, " N"] | None = None
    classes: tuple[str, ...] | None = None
    name: str = ""
    root: str = ""
    maps: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def identity(self, *, times: bool = True) -> str:
        """sha256 over every file's path below `root`, size and time of change, over the labels and the maps' files.

        times: without them it is the same on every machine that holds the same files.
        """
        digest = hashlib.sha256()
        prefix = self.root.rstrip("/") + "/"
        for path in (*self.paths, *(self.maps or ())):
            try:
                facts = Path(path).stat()
                size, changed = facts.st_size, facts.st_mtime_ns if times else 0
            except (OSError, ValueError):
                size, changed = -1, -1
            digest.update(os.fsencode(path.removeprefix(prefix)) + f"\0{size}\0{changed}\n".encode())
        if self.labels is not None:
            digest.update(self.labels.astype("<i8").tobytes())
        return digest.hexdigest()
