"""The student of a run folder, from its newest valid checkpoint."""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from unic.core.dataclass_json import from_dict, read_json
from unic.core.errors import ConfigError, WeightsError
from unic.core.files import newest_valid
from unic.method.config import StatisticsConfig
from unic.models.config import LadderConfig, StudentConfig
from unic.models.dinov2_format import resampling
from unic.models.state_keys import below
from unic.models.student import encoder_with_weights
from unic.students.loaded_student import LoadedStudent, ladder_of, standardizers_of
from unic.teachers import short_name


def read_run(folder: Path) -> LoadedStudent:
    """The student of a run folder, from its newest valid checkpoint."""
    config = read_config(folder)
    cfg = from_dict(StudentConfig, config["student"], "student.")
    checkpoint = _newest_checkpoint(folder)
    state = load_file(checkpoint / "model.safetensors")
    weights = below("encoder.model.", state)
    facts = read_json(checkpoint / "meta.json")
    encoder = encoder_with_weights(
        cfg,
        weights,
        name=folder.resolve().name,
        origin=str(checkpoint),
        resampling=resampling(facts.get("imported", {}).get("format"), registers="reg_token" in weights),
    )
    ladder_cfg = from_dict(LadderConfig, config.get("ladder", {}), "ladder.")
    ladder = ladder_of(encoder, below("ladder.", state), ladder_cfg, str(checkpoint))
    statistics = from_dict(StatisticsConfig, config.get("statistics", {}), "statistics.")
    buffers = load_file(checkpoint / "statistics.safetensors")
    buffers.pop("window", None)
    return LoadedStudent(
        name=encoder.name,
        cfg=cfg,
        encoder=encoder,
        ladder=ladder if ladder.widths else None,
        ladder_cfg=ladder_cfg,
        standardizers=standardizers_of(ladder.widths, buffers, statistics, str(checkpoint)),
        teachers={short_name(reference): reference for reference in config.get("teachers", [])},
        config=config,
        facts=facts,
        source=folder,
        checkpoint=checkpoint,
    )


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


def _newest_checkpoint(folder: Path) -> Path:
    try:
        checkpoint = newest_valid(folder / "checkpoints", set_aside=False)
    except WeightsError as error:  # whose advice is for the run itself
        raise WeightsError(
            f"{folder}: every checkpoint there is damaged; give another run folder, or an encoder.safetensors"
        ) from error
    if checkpoint is None:
        raise WeightsError(f"{folder} holds no checkpoint yet; let the run go on first")
    return checkpoint
