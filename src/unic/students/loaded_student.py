"""A student as it was saved: its encoder, and where there are any its ladder and the statistics of its teachers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn

from unic.core.config import from_dict, read_json
from unic.core.errors import ConfigError, WeightsError
from unic.core.files import newest_valid
from unic.core.plugins import unknown
from unic.method.config import StatisticsConfig
from unic.method.standardize import Standardizer
from unic.method.tokens import Tokens, Widths
from unic.models.config import LadderConfig, StudentConfig
from unic.models.dense_utils import sharing_weights
from unic.models.dinov2_format import resampling
from unic.models.encoder import ImageEncoder
from unic.models.ladder import Ladder, read_ladder
from unic.models.positions import positions_of
from unic.models.student import build_encoder
from unic.models.timm_encoder import TimmEncoder
from unic.models.weights import below, load_strictly
from unic.teachers import short_name


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
        parts = {name: sharing_weights(self.model[name]) for name in ("ladder", "standardizer")}
        return nn.ModuleDict({"encoder": self.model["encoder"].at_size(height, width), **parts})


def read_run(folder: Path) -> LoadedStudent:
    """The student of a run folder, from its newest valid checkpoint."""
    config = read_config(folder)
    cfg = from_dict(StudentConfig, config["student"], "student.")
    checkpoint = newest_valid(folder / "checkpoints", set_aside=False)
    if checkpoint is None:
        raise WeightsError(f"{folder} holds no checkpoint yet; let the run go on first")
    state = load_file(checkpoint / "model.safetensors")
    encoder = build_encoder(cfg, seed=config["seed"], name=folder.resolve().name)
    weights = below("encoder.model.", state)
    load_strictly(encoder.model, weights, str(checkpoint))
    facts = read_json(checkpoint / "meta.json")
    form = facts.get("imported", {}).get("format")
    encoder.positions = positions_of(weights, resampling(form, registers="reg_token" in weights))
    ladder_cfg = from_dict(LadderConfig, config.get("ladder", {}), "ladder.")
    ladder = ladder_of(encoder, below("ladder.", state), ladder_cfg, str(checkpoint))
    statistics = from_dict(StatisticsConfig, config.get("statistics", {}), "statistics.")
    buffers = load_file(checkpoint / "statistics.safetensors")
    buffers.pop("window", None)
    return LoadedStudent(
        name=encoder.name,
        cfg=cfg,
        encoder=encoder.eval().requires_grad_(False),
        ladder=ladder if ladder.widths else None,
        ladder_cfg=ladder_cfg,
        standardizers=standardizers_of(ladder.widths, buffers, statistics, str(checkpoint)),
        teachers={short_name(reference): reference for reference in config.get("teachers", [])},
        config=config,
        facts=facts,
        source=folder,
    )


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


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a run folder. Raises ConfigError when it is none."""
    path = folder / "config.json"
    if not path.exists():
        raise ConfigError(f"{folder} is no run folder: it has no config.json")
    config = read_json(path)
    if not isinstance(config, dict) or not {"student", "seed"} <= config.keys():
        raise ConfigError(
            f"{path} is not the configuration of a run (a folder of transformers is named hf:{folder}; what was "
            f"exported for timm is loaded with timm)"
        )
    return config
