"""file:<path>: weights on this machine. A student of unic says itself what it is; others need ?model=<timm model>."""

from pathlib import Path

from unic.core.errors import ConfigError
from unic.models.config import ENCODER_FILE
from unic.models.encoder import ImageEncoder
from unic.models.positions import Resampling, fit_positions, positions_of
from unic.models.student import read_encoder
from unic.models.timm_encoder import TimmEncoder, create_timm, without_classifier
from unic.models.weights import load_strictly, read_weights
from unic.teachers.from_timm import encoder_of


def load(text: str, options: dict) -> ImageEncoder:
    path = Path(text).expanduser()
    if path.is_dir():
        path /= ENCODER_FILE
        if not path.is_file():
            raise FileNotFoundError(f"file:{text}: no {ENCODER_FILE} there, which a finished run has")
    if "model" in options:
        return _timm_file(path, options)
    student = read_encoder(path, image_size=options.get("image_size"))
    if student is None:
        raise ConfigError(f"file:{text} needs the architecture: file:{text}?model=<timm model>")
    choices = {key: options[key] for key in ("layer", "cls") if key in options}
    if not choices:
        return student
    return TimmEncoder(
        student.model,
        name=student.name,
        image_size=student.image_size,
        **{"cls": "token", **choices},
        positions=student.positions,
    )


def _timm_file(path: Path, options: dict) -> ImageEncoder:
    model = create_timm(options["model"], image_size=options.get("image_size"))
    state = without_classifier(read_weights(path), model)
    load_strictly(model, fit_positions(state, model, Resampling()), str(path))
    return encoder_of(model, options["model"], options, positions_of(state, Resampling()))
