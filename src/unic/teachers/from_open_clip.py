"""open_clip:<architecture>/<tag>: the image tower of a CLIP-type model; tag: one of open_clip's, or a file's path.

CLS and patches are those before the projection into the space of texts; that projection is in text_tower.py.

Letters: B images, N patches, D width, S class and patch tokens.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unic.core.errors import ConfigError
from unic.core.registry import unknown
from unic.method.types import TokenMaps, Tokens
from unic.models.encoder import ImageEncoder
from unic.models.positions import Resampling, positions_of, resample_positions
from unic.models.timm_encoder import TimmEncoder
from unic.models.weights import load_strictly, read_weights
from unic.teachers.hf_download import hub_file


class OpenClipEncoder(ImageEncoder):
    """open_clip's own towers: its VisionTransformer and its ResNet.

    CLS: what the tower projects (for most the class token after ln_post); the attention pool of a ResNet.
    Patches: the patch tokens after ln_post, or as an attentional pooler reads them; the cells of a ResNet's last map.
    layer: which block or stage the tokens come from; a CLS that is pooled is always that of the whole model.
    positions: a ViT's position embedding on the grid it came with; None: the model's own.
    """

    def __init__(
        self,
        visual: Any,
        *,
        layer: int | None = None,
        positions: Float[Tensor, "1 S D"] | None = None,
        **facts: Any,
    ):
        super().__init__(visual, **facts)
        self.layer = layer
        self.positions = positions
        self.measure()

    def tokens(self, pixels: Float[Tensor, "B 3 H W"]) -> Tokens:
        if hasattr(self.model, "attnpool"):
            return self._resnet(pixels)
        visual, pooler = self.model, self.model.attn_pool
        classifies_from_token = pooler is None and visual.pool_type == "tok"
        tokens_BSD, last_BSD = self._blocks(pixels)
        cls, _ = visual._pool(tokens_BSD if classifies_from_token else last_BSD)
        if cls.ndim != 2:
            raise ConfigError(f"{self.name}: this tower pools its tokens into several, unic needs one CLS")
        return Tokens(cls, self._final_norm(tokens_BSD[:, 1:]))

    @property
    def _num_blocks(self) -> int | None:
        is_resnet = hasattr(self.model, "attnpool")
        return None if self.layer is not None or is_resnet else len(self.model.transformer.resblocks)

    def _inner_maps(self, pixels: Tensor, numbers: list[int], norm: bool) -> dict[int, TokenMaps]:
        """CLS is the class token, also of the last block."""
        maps = {}
        for number, block in zip(numbers, self._outputs(pixels, numbers), strict=True):
            tokens_BSD = self._final_norm(block) if norm else block
            maps[number] = self._placed(Tokens(tokens_BSD[:, 0], tokens_BSD[:, 1:]), pixels)
        return maps

    def reading(self) -> tuple:
        return (self.layer,)

    def _model_at(self, height: int, width: int) -> Any:
        if hasattr(self.model, "attnpool"):
            if (height, width) != (self.image_size, self.image_size):
                raise ConfigError(
                    f"{self.name} reads pictures of {self.image_size} x {self.image_size} pixels only, because its "
                    f"attention pool has one position for each of their cells; got {height} x {width}"
                )
            return super()._model_at(height, width)
        visual = super()._model_at(height, width)
        own = visual.positional_embedding
        positions = own[None] if self.positions is None else self.positions
        grid = (height // self.patch_size, width // self.patch_size)
        # On the CPU, because the content_hash of the result must not depend on the device.
        found = resample_positions(positions.detach().cpu(), *grid, num_prefix=1, how=Resampling())
        visual.positional_embedding = nn.Parameter(found[0].to(own), requires_grad=own.requires_grad)
        visual.image_size, visual.grid_size = (height, width), grid
        return visual

    @property
    def _final_norm(self) -> nn.Module:
        pooler = self.model.attn_pool
        return self.model.ln_post if pooler is None else pooler.ln_k

    def _blocks(self, pixels: Tensor) -> tuple[Float[Tensor, "B S D"], Float[Tensor, "B S D"]]:
        """The chosen block's tokens and the last one's, before the final norm."""
        outputs = self._outputs(pixels, self._indices)
        return outputs[0], outputs[-1]

    def _outputs(self, pixels: Tensor, indices: list[int]) -> list[Float[Tensor, "B S D"]]:
        """Class and patch tokens after these blocks, before the final norm."""
        found = self.model.forward_intermediates(
            pixels, indices=indices, output_fmt="NLC", output_extra_tokens=True, intermediates_only=True
        )
        pairs = zip(found["image_intermediates_prefix"], found["image_intermediates"], strict=True)
        return [torch.cat(pair, dim=1) for pair in pairs]

    def _resnet(self, pixels: Tensor) -> Tokens:
        found = self.model.forward_intermediates(pixels, indices=self._indices)
        stage = found["image_intermediates"][0]
        return Tokens(found["image_features"], stage.flatten(2).transpose(1, 2))  # (B, D, h, w) -> (B, N, D)

    @property
    def _indices(self) -> list[int]:
        return [-1 if self.layer is None else self.layer, -1]


def load(text: str, options: dict) -> ImageEncoder:
    size = options.get("image_size")
    towers, tag = create_open_clip(text, pretrained=bool(options.get("pretrained", True)), image_size=size)
    visual = towers.model.visual
    facts = {
        "name": text,
        "image_size": size or _side(visual.image_size, text),
        "mean": tag.get("mean", visual.preprocess_cfg["mean"]),
        "std": tag.get("std", visual.preprocess_cfg["std"]),
        "layer": options.get("layer"),
    }
    if not hasattr(visual, "trunk"):
        return OpenClipEncoder(visual, positions=towers.positions, **facts)
    native = positions_of(visual.trunk.state_dict(), Resampling())
    if size is not None:
        visual.set_input_size(size)  # resamples the positions, so after loading
    return TimmEncoder(visual.trunk, positions=native, **facts)


class Towers(NamedTuple):
    """open_clip's model of images and texts. positions: those of its image ViT's file, on the grid they came with."""

    model: Any
    positions: Float[Tensor, "1 S D"] | None


def create_open_clip(
    text: str, *, pretrained: bool, image_size: int | None = None
) -> tuple["Towers", Mapping[str, Any]]:
    """Both towers of "<architecture>/<tag>" with their weights, and what open_clip knows about the tag."""
    arch, _, name = text.partition("/")
    if not pretrained:
        return architecture(arch, image_size=image_size), {}
    path, tag = _weights(arch, name)
    # The tag says which activation the weights were trained with; the architecture may be that of another tag.
    return architecture(arch, image_size=image_size, quick_gelu=bool(tag.get("quick_gelu")), path=path), tag


def architecture(
    arch: str, *, image_size: int | None = None, quick_gelu: bool = False, path: Path | None = None
) -> "Towers":
    """open_clip's model of this name, with the weights in `path` where it is given, else with random ones."""
    config = architecture_config(arch)
    text_repo = config["text_cfg"].get("hf_model_name")
    if text_repo:  # open_clip builds the text tower from that repository's config
        hub_file(text_repo, "config.json", reference=f"open_clip:{arch} (its text tower)")
    import open_clip
    from open_clip.model import resize_pos_embed

    vision = config["vision_cfg"]
    timm_tower = "timm_model_name" in vision
    if isinstance(vision.get("layers"), list) and image_size not in (None, vision["image_size"]):
        raise ConfigError(
            f"open_clip:{arch}: a ResNet with attention pooling has one image size, {vision['image_size']}; "
            f"leave image_size out"
        )
    with _without_warning_of_random_weights():
        model: Any = open_clip.create_model(
            arch,
            force_image_size=None if timm_tower else image_size,
            force_quick_gelu=quick_gelu,
            pretrained_text=False,
        )
    if path is None:
        return Towers(model, None)
    state = _as_this_version_names_it(read_weights(path), model)
    positions = state.get("visual.positional_embedding")
    native = None if positions is None else positions[None].clone()
    resize_pos_embed(state, model)
    load_strictly(model, state, str(path))
    return Towers(model, native)


def architecture_config(arch: str) -> dict:
    """open_clip's description of an architecture."""
    try:
        import open_clip
    except ImportError as error:
        raise ImportError("open_clip:<architecture> needs open_clip: pip install 'unic[clip]'") from error
    config = open_clip.get_model_config(arch) if arch in open_clip.list_models() else None
    if config is None:
        listing = 'python -c "import open_clip; print(*open_clip.list_models())"'
        raise ConfigError(
            unknown("open_clip architecture", arch, open_clip.list_models(), list_command=listing)
        )
    return config


def _weights(arch: str, name: str) -> tuple[Path, Mapping[str, Any]]:
    architecture_config(arch)
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(arch)
    tag = open_clip.get_pretrained_cfg(arch, name) if name else {}
    path = Path(name).expanduser()
    if name and not tag and path.is_file():
        return path, _agreed(arch, tags)
    if not tag and (path.is_absolute() or path.suffix in (".pt", ".pth", ".bin", ".safetensors")):
        raise FileNotFoundError(f"open_clip:{arch}/{name}: no weights at {path}")
    if not tag:
        raise ConfigError(
            f"open_clip:{arch}: {unknown('tag', name, tags)}; a file's path or ?pretrained=0 work too"
        )
    repo, _, file = tag["hf_hub"].rpartition("/")
    # open_clip's names for a repository alone; of every file, safetensors are preferred.
    names = (
        (Path(file).with_suffix(".safetensors").name, file)
        if file
        else ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    )
    found = hub_file(repo, *names, reference=f"open_clip:{arch}/{name}")
    if found is None:
        raise FileNotFoundError(f"open_clip:{arch}/{name}: {repo} on the hub has no {' or '.join(names)}")
    return found, tag


def _agreed(arch: str, tags: list[str]) -> dict[str, Any]:
    """Mean and std, where all published weights of an architecture share them: SigLIP's are not CLIP's."""
    import open_clip

    known = [open_clip.get_pretrained_cfg(arch, tag) for tag in tags]
    found = {(tuple(tag["mean"]), tuple(tag["std"])) for tag in known if "mean" in tag}
    return dict(zip(("mean", "std"), found.pop(), strict=True)) if len(found) == 1 else {}


def _as_this_version_names_it(state: dict[str, Tensor], model: Any) -> dict[str, Tensor]:
    """open_clip's own repairs of files in older layouts (load_checkpoint in open_clip 3.3's factory.py)."""
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    own = model.state_dict()
    state = convert_state_dict(model, state)
    if "positional_embedding" in state and "positional_embedding" not in own:
        state = convert_to_custom_text_state_dict(state)
    unused = {"text.transformer.embeddings.position_ids"} - own.keys()
    scalars = {key: state[key].reshape(own[key].shape) for key in _SCALARS & own.keys() & state.keys()}
    return {key: tensor for key, tensor in {**state, **scalars}.items() if key not in unused}


_SCALARS = {"logit_scale", "logit_bias"}


def _side(size: int | tuple[int, int], text: str) -> int:
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) > 1:
        raise ConfigError(
            f"open_clip:{text} sees images of {size} pixels; unic needs square ones: ?image_size="
        )
    return sides.pop()


@contextmanager
def _without_warning_of_random_weights() -> Iterator[None]:
    """open_clip warns that it made random weights; here they are loaded afterwards, or were asked for."""

    def filter_(record: logging.LogRecord) -> bool:
        return "No pretrained weights loaded" not in record.msg

    root = logging.getLogger()
    root.addFilter(filter_)
    try:
        yield
    finally:
        root.removeFilter(filter_)
