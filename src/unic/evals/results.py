"""What an evaluation gives: one number, with all that is needed to compare it."""

import dataclasses
import json
from dataclasses import dataclass

from unic.core.config import from_dict


@dataclass(frozen=True, kw_only=True)
class Result:
    """One number, with all that is needed to compare it: a line of results.jsonl.

    protocol: version of the evaluation ("knn-1"), followed by every setting that is not the protocol's own.
      Only numbers of the same protocol and data hash are comparable.
    model_hash: of weights, preprocessing, and where tokens are read.
    data_hash: of the split: paths, sizes and labels of its images; the same on every machine.
    seed: of what was drawn at random, where that was one seed.
    seconds: wall-clock time of the evaluation this number is from, features included.
    """

    model: str
    dataset: str
    evaluation: str
    metric: str
    value: float
    unit: str = "%"
    higher_is_better: bool = True
    protocol: str
    model_hash: str
    data_hash: str
    seed: int | None = None
    seconds: float = 0.0

    def to_json(self) -> str:
        """One line, without its end."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> "Result":
        return from_dict(cls, json.loads(line), "result.")
