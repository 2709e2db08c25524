"""A student as it was saved: its encoder, and where there are any its ladder and the statistics of its teachers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from jaxtyping import Float
from torch import Tensor, nn

from unic.core.errors import ConfigError
from unic.core.files import MANIFEST, file_sha256
from unic.core.registry import unknown
from unic.method.config import StatisticsConfig
from unic.method.standardize import Standardizer
from unic.method.types import Tokens, Widths
from unic.models.config import LadderConfig, StudentConfig
from unic.models.encoder import ImageEncoder
from unic.models.ladder import Ladder, read_ladder
from unic.models.share_weights import share_weights
from unic.models.timm_encoder import TimmEncoder
from unic.models.weights import load_strictly


@dataclass(frozen=True, kw_only=True)
class LoadedStudent:
    """What every reader of students gives, and every writer takes. Modules are frozen and in eval mode."""

    name: str
    cfg: StudentConfig
    encoder: TimmEncoder
    ladder: Ladder | None = None
    ladder_cfg: LadderConfig = field(default_factory=LadderConfig)
    standardizers: Mapping[str, Standardizer] = field(default_factory=dict)
    """By teacher, as in the ladder; empty for an encoder without its ladder."""
    teachers: Mapping[str, str] = field(default_factory=dict)
    """By the teacher's name in the ladder, the reference it was loaded by."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The recipe, as in config.json; empty where it is not known."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else the file or checkpoint says: steps done, hashes of teachers and data, or a published file's epoch."""
    source: Path
    """The run folder or file, as it was named."""
    checkpoint: Path | None = None
    """The checkpoint of the run that was read; None for a file."""

    def sha256(self) -> str:
        """Of the checkpoint's manifest, or of the file."""
        return file_sha256(self.source if self.checkpoint is None else self.checkpoint / MANIFEST)

    def head(self, teacher: str) -> "HeadEncoder":
        """The student in the feature space of one teacher. Raises ConfigError naming the teachers there are."""
        if self.ladder is None:
            raise ConfigError(
                f"{self.source} holds an encoder without its ladder, so it has no head for {teacher}"
            )
        if teacher not in self.standardizers:
            raise ConfigError(f"{self.source}: {unknown('head', teacher, self.standardizers)}")
        own = {key: value for key, value in self.ladder.state_dict().items() if key.split(".")[1] == teacher}
        ladder = ladder_of(self.encoder, own, self.ladder_cfg, str(self.source))
        return HeadEncoder(self.encoder, ladder, self.standardizers[teacher])


class HeadEncoder(ImageEncoder):
    """A student that speaks one teacher's language: ladder, then the teacher's own mean and std put back."""

    def __init__(self, encoder: TimmEncoder, ladder: Ladder, standardizer: Standardizer):
        (teacher,) = ladder.widths
        parts = {"encoder": encoder, "ladder": ladder, "standardizer": standardizer}
        super().__init__(
            nn.ModuleDict(parts), name=f"{encoder.name}@{teacher}", image_size=encoder.image_size
        )
        self.teacher = teacher
        self.to(encoder.mean.device)  # the encoder may have been moved since the student was read
        self.mean.copy_(encoder.mean)
        self.std.copy_(encoder.std)
        self.measure()

    def tokens(self, pixels: Float[Tensor, "B 3 H W"]) -> Tokens:
        outputs = self.model["ladder"](self.model["encoder"].blocks(pixels))
        return self.model["standardizer"].inverse(outputs[self.teacher])

    def reading(self) -> tuple:
        return (repr(self.model["standardizer"].cfg),)

    @property
    def stride(self) -> int:
        return self.model["encoder"].stride

    def _model_at(self, height: int, width: int) -> Any:
        parts = {name: share_weights(self.model[name]) for name in ("ladder", "standardizer")}
        return nn.ModuleDict({"encoder": self.model["encoder"].at_size(height, width), **parts})


def ladder_of(encoder: TimmEncoder, state: Mapping[str, Tensor], cfg: LadderConfig, origin: str) -> Ladder:
    """The ladder over this encoder with these weights; it has no heads where there are no weights."""
    return read_ladder(state, dim=encoder.dim, num_blocks=len(encoder.model.blocks), cfg=cfg, origin=origin)


def standardizers_of(
    widths: Mapping[str, Widths], buffers: Mapping[str, Tensor], cfg: StatisticsConfig, origin: str
) -> dict[str, Standardizer]:
    """Statistics by teacher, from buffers named <teacher>.<cls|patch>_<mean|std>."""
    modules = nn.ModuleDict({name: Standardizer(width, cfg) for name, width in widths.items()})
    load_strictly(modules, buffers, origin)
    modules.eval()
    return {name: cast(Standardizer, module) for name, module in modules.items()}
