"""hub:<repository>:<entry>: models through torch.hub, which RUNS the repository's Python code (hubconf.py).

repository: a folder here, whose code is yours, or owner/name[:branch] on GitHub, which needs ?trust=1.
Mean and std are ImageNet's, because torch.hub has no place where a model says its own.

Letters: B images, S class and patch tokens, D width.
"""

import inspect
from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unic.core.errors import ConfigError
from unic.method.types import TokenMaps, Tokens
from unic.models.encoder import ImageEncoder


class HubEncoder(ImageEncoder):
    """Reads a ViT in the manner of DINO or DINOv2.

    In this order: forward_features -> {x_norm_clstoken, x_norm_patchtokens}; forward_features -> class and patch
    tokens; get_intermediate_layers(x, 1) -> class and patch tokens. All are after the final norm.
    layer: which block, through get_intermediate_layers; negative ones count from the end.
    """

    def __init__(self, model: nn.Module, *, name: str, image_size: int = 224, layer: int | None = None):
        super().__init__(model, name=name, image_size=image_size)
        self.layer = layer
        self.measure()

    def tokens(self, pixels: Float[Tensor, "B 3 H W"]) -> Tokens:
        has_layers = hasattr(self.model, "get_intermediate_layers")
        if self.layer is not None:
            if not has_layers:
                raise ConfigError(f"{self.name} has no get_intermediate_layers; leave layer out")
            return self._from_end(pixels, self._distance(self.layer))
        features = self.model.forward_features(pixels) if hasattr(self.model, "forward_features") else None
        if isinstance(features, Mapping) and {"x_norm_clstoken", "x_norm_patchtokens"} <= features.keys():
            return Tokens(features["x_norm_clstoken"], features["x_norm_patchtokens"])
        if isinstance(features, Tensor) and features.ndim == 3:
            return Tokens(features[:, 0], features[:, 1:])
        if has_layers:
            return self._from_end(pixels, 1)
        raise ConfigError(
            f"{self.name}: {type(self.model).__name__} has neither forward_features that gives class and patch tokens "
            f"nor get_intermediate_layers; wrap it in a hubconf.py of yours that has one"
        )

    @property
    def _num_blocks(self) -> int | None:
        """None where get_intermediate_layers is not in the manner of DINOv2."""
        get_layers = getattr(self.model, "get_intermediate_layers", None)
        takes = inspect.signature(get_layers).parameters if get_layers else {}
        reads_blocks = self.layer is None and {"n", "return_class_token", "norm"} <= takes.keys()
        return self._depth if reads_blocks else None

    def _inner_maps(self, pixels: Tensor, numbers: list[int], norm: bool) -> dict[int, TokenMaps]:
        found = self.model.get_intermediate_layers(pixels, numbers, return_class_token=True, norm=norm)
        return {
            number: self._placed(Tokens(cls, patches), pixels)
            for number, (patches, cls) in zip(numbers, found, strict=True)
        }

    def reading(self) -> tuple:
        return (self.layer,)

    def _from_end(self, pixels: Tensor, count: int) -> Tokens:
        """The tokens of the count-th block from the end."""
        get_layers = self.model.get_intermediate_layers
        if "return_class_token" in inspect.signature(get_layers).parameters:  # DINOv2, without its registers
            patches, cls = get_layers(pixels, count, return_class_token=True)[0]
            return Tokens(cls, patches)
        tokens_BSD = get_layers(pixels, count)[0]
        return Tokens(tokens_BSD[:, 0], tokens_BSD[:, 1:])

    def _distance(self, layer: int) -> int:
        """Blocks from the chosen one to the end, itself included."""
        depth = self._depth
        if not -depth <= layer < depth:
            raise ConfigError(f"{self.name} has {depth} blocks, so there is no layer {layer}")
        return -layer if layer < 0 else depth - layer

    @property
    def _depth(self) -> int:
        return getattr(self.model, "n_blocks", None) or len(self.model.blocks)


def load(text: str, options: dict) -> ImageEncoder:
    repo, colon, entry = text.rpartition(":")
    if not (colon and repo and entry):
        raise ConfigError(f"hub:{text}: expected hub:<folder or owner/name>:<entry of its hubconf.py>")
    folder = Path(repo).expanduser()
    is_folder = folder.is_dir()
    if is_folder and not (folder / "hubconf.py").is_file():
        raise FileNotFoundError(f"hub:{text}: no hubconf.py in {folder}, which torch.hub needs")
    if not is_folder and not options.get("trust"):
        raise ConfigError(
            f"hub:{text}: no such folder here, and torch.hub would run the Python code of github.com/{repo} on this "
            f"machine; if you trust it, say so: hub:{text}?trust=1"
        )
    choices = {key: options[key] for key in ("image_size", "layer") if key in options}
    return HubEncoder(
        _run(str(folder) if is_folder else repo, entry, is_folder=is_folder), name=text, **choices
    )


def _run(repo: str, entry: str, *, is_folder: bool) -> nn.Module:
    where = "local" if is_folder else "github"
    try:
        model = torch.hub.load(repo, entry, source=where, trust_repo=True, verbose=False)  # pyright: ignore[reportArgumentType]
    except (
        Exception
    ) as error:  # whatever the repository's code raises, and torch.hub's own for a missing network
        said = (str(error).splitlines() or ["no reason given"])[0]
        raise ConfigError(f"hub:{repo}:{entry}: {type(error).__name__}: {said}") from error
    if not isinstance(model, nn.Module):
        raise ConfigError(f"hub:{repo}:{entry} gives a {type(model).__name__}, expected a torch module")
    return model
