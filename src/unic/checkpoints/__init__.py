"""Encoders by any name a person would use: a teacher, a URI, or the folder of a run."""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from unic.config import from_dict, read_json
from unic.errors import ConfigError, WeightsError
from unic.models.encoder import TimmEncoder
from unic.models.student import StudentConfig, build_encoder
from unic.models.weights import load_strictly, read_weights
from unic.run import newest_valid
from unic.teachers import TEACHERS, load_teacher, parse_reference

RELEASED = "encoder.safetensors"


def load(reference: str | Path) -> TimmEncoder:
    """An encoder in eval mode, ready to be called on uint8 images.

    reference: the folder of a run or its encoder.safetensors, a teacher's name, or a URI such as
      timm:vit_small_patch16_224.dino?image_size=336.
    """
    path = Path(reference).expanduser()
    if path.is_dir():
        return load_student(path)
    if path.name == RELEASED and path.is_file() and (path.parent / "config.json").is_file():
        encoder = load_untrained(path.parent)
        load_strictly(encoder.model, read_weights(path), str(path))
        encoder.name = run_name(path.parent)
        return encoder
    if isinstance(reference, Path) or ("/" in str(reference) and ":" not in str(reference)):
        raise FileNotFoundError(f"{reference}: no such run folder")
    return load_teacher(str(reference))


def check(reference: str) -> None:
    """Raises ConfigError or FileNotFoundError for a reference that cannot be loaded, without loading it."""
    path = Path(reference).expanduser()
    if path.is_dir():
        _config(path)
    elif not path.is_file():
        base, _ = parse_reference(reference)
        if ":" not in base and "/" not in base:
            TEACHERS[base]


def load_student(folder: Path) -> TimmEncoder:
    """The student's encoder from the newest valid checkpoint of a run."""
    encoder = load_untrained(folder)
    encoder.name = run_name(folder)
    checkpoint = newest_valid(folder / "checkpoints", set_aside=False)
    if checkpoint is None:
        raise WeightsError(f"{folder} holds no checkpoint yet; let the run go on first")
    prefix = "encoder.model."
    state = load_file(checkpoint / "model.safetensors")
    own = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
    load_strictly(encoder.model, own, str(checkpoint))
    return encoder


def load_untrained(folder: Path) -> TimmEncoder:
    """The student of a run as it was initialised: what any result has to beat."""
    config = _config(folder)
    student = from_dict(StudentConfig, config["student"], "student.")
    encoder = build_encoder(student, seed=config["seed"], name=f"{run_name(folder)} untrained")
    return encoder.eval().requires_grad_(False)


def run_name(folder: Path) -> str:
    return folder.resolve().name


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.exists():
        raise ConfigError(f"{folder} is no run folder: it has no config.json")
    config = read_json(path)
    if not isinstance(config, dict) or not {"student", "seed"} <= config.keys():
        raise ConfigError(f"{path} is not the configuration of a run")
    return config
