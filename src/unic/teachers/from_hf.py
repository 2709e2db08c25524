"""hf:<repository or folder>: vision backbones of transformers, without running code of the repository.

One place decides what CLS and patches are: `HfEncoder.tokens`, from shapes, with the exceptions in _FAMILIES.

Letters: B images, N patches, D width, S all tokens, h w grid.
"""

import inspect
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unic.core.errors import ConfigError, WeightsError, first_line
from unic.method.types import TokenMaps, Tokens
from unic.models.encoder import IMAGENET_MEAN, IMAGENET_STD, ImageEncoder, block_numbers
from unic.models.timm_encoder import ClsRule
from unic.teachers.hf_download import ask_hub, hub_file, without_bars

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Family:
    """What shapes do not tell about a family's outputs."""

    prefix: int | None = None
    """Tokens before the patches; None: all that are more than (image size / patch size)^2."""
    norm: str | None = None
    """The final norm, where last_hidden_state has not been through it."""
    pooled: bool = False
    """CLS is what the model pools although there is a class token."""


_FAMILIES = {
    "beit": _Family(pooled=True),  # its pooler holds the final norm
    "data2vec-vision": _Family(pooled=True),
    "dinov3_convnext": _Family(prefix=1),  # the pooled vector comes as the first token
    "hiera": _Family(prefix=0),  # patches are merged on the way
    "swin": _Family(prefix=0),
    "swinv2": _Family(prefix=0),
    **dict.fromkeys(
        (
            "altclip_vision_model",
            "chinese_clip_vision_model",
            "clip_vision_model",
            "metaclip_2_vision_model",
            "mlcd_vision_model",
        ),
        _Family(norm="post_layernorm"),
    ),
}
_FINAL_NORMS = ("layernorm", "norm", "post_layernorm", "rms_norm")
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")


class HfEncoder(ImageEncoder):
    """Reads CLS and patch tokens from a vision backbone of transformers.

    cls: "token" is the first token after the final norm; "pooled" is the model's own pooling, or the mean of its
      patches where it has none; "auto" is the token where there is one, else pooled. Poolers that were trained for a
      lost classifier (ViT, DeiT) are never used. Registers and distillation tokens are left out.
    layer: which block's tokens, through the final norm, or which stage's map of a CNN; negative ones count from the
      end. A pooled CLS is always that of the whole model.
    """

    def __init__(self, tower: Any, *, cls: ClsRule = "auto", layer: int | None = None, **facts: Any):
        super().__init__(tower, **facts)
        self.cls_rule: ClsRule = cls
        self.layer = layer
        self.family = _FAMILIES.get(tower.config.model_type, _Family())
        if _made_for_classifier(
            tower
        ):  # often absent from the file and then random: keep it out of the content_hash
            tower.pooler = None
        takes = inspect.signature(tower.forward).parameters
        self.call_options = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in takes else {}
        self.measure()

    def tokens(self, pixels: Float[Tensor, "B 3 H W"]) -> Tokens:
        output = self._run(pixels, blocks=self.layer is not None)
        last, pooled = self._last(output), getattr(output, "pooler_output", None)
        read = last if self.layer is None else self._block(output.hidden_states, last)
        if last.ndim == 4:
            if self.cls_rule == "token":
                raise ConfigError(f"{self.name} has no class token; use cls=pooled")
            cls = last.mean((2, 3)) if pooled is None else pooled.flatten(1)
            return Tokens(cls, read.flatten(2).transpose(1, 2))  # (B, D, h, w) -> (B, N, D)
        prefix = self._num_prefix(last.shape[1], pixels)
        if self.cls_rule == "token" and not prefix:
            raise ConfigError(f"{self.name} has no class token; use cls=pooled")
        by_token = self.cls_rule == "token" or (
            self.cls_rule == "auto" and prefix > 0 and not self.family.pooled
        )
        if by_token:
            return Tokens(read[:, 0], read[:, prefix:])
        if pooled is None or (prefix and not self.family.pooled):
            pooled = last[:, prefix:].mean(1)
        return Tokens(pooled, read[:, prefix:])

    def maps(
        self, pixels: Float[Tensor, "B 3 H W"], layers: Sequence[int] = (-1,), *, norm: bool = True
    ) -> list[TokenMaps]:
        """As `ImageEncoder.maps`, at any blocks of a ViT through its norm, and at any stages of a CNN.

        CLS of an inner stage, or of an inner block of a ViT without class token, is the mean over its places.
        """
        if self.layer is not None or (tuple(layers) == (-1,) and norm):
            return super().maps(pixels, layers, norm=norm)
        return self._run_at(pixels, lambda pixels: self._maps_of_blocks(pixels, layers, norm))

    def _maps_of_blocks(self, pixels: Tensor, layers: Sequence[int], norm: bool) -> list[TokenMaps]:
        output, last_before_norm = self._run_watching_norm(pixels)
        last, hidden = self._last(output), output.hidden_states
        if not hidden:
            return super().maps(pixels, layers, norm=norm)
        depth = len(hidden) - 1  # the first one is the embedding
        found = []
        for number in block_numbers(layers, depth, self.name):
            if last.ndim == 4:
                stage = self._block(hidden, last, number)
                found.append(TokenMaps(stage.mean((2, 3)), stage))
                continue
            if hidden[number + 1].shape != last.shape:
                raise ConfigError(
                    f"{self.name} ({self.model.config.model_type}) cannot be read at inner blocks"
                )
            if norm:
                block = last if number == depth - 1 else self._block(hidden, last, number)
            else:  # of the last block some families give only what has been through the norm
                block = last_before_norm if number == depth - 1 else hidden[number + 1]
            prefix = self._num_prefix(block.shape[1], pixels)
            by_token = prefix > 0 and self.cls_rule != "pooled" and not self.family.pooled
            cls = block[:, 0] if by_token else block[:, prefix:].mean(1)
            found.append(self._placed(Tokens(cls, block[:, prefix:]), pixels))
        return found

    def _run_watching_norm(self, pixels: Tensor) -> tuple[Any, Tensor]:
        """What the model says, and the last block's tokens before the final norm."""
        norms = [] if self.family.norm else self._final_norms
        seen: list[Tensor] = []
        hooks = [
            norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])) for norm in norms[:1]
        ]
        try:
            output = self._run(pixels, blocks=True)
        finally:
            for hook in hooks:
                hook.remove()
        return output, seen[0] if seen else output.last_hidden_state

    @property
    def _final_norms(self) -> list[nn.Module]:
        return [getattr(self.model, name) for name in _FINAL_NORMS if hasattr(self.model, name)]

    def reading(self) -> tuple:
        return (self.cls_rule, self.layer)

    def _last(self, output: Any) -> Tensor:
        """The last block's tokens after the final norm."""
        last = output.last_hidden_state
        return last if self.family.norm is None else getattr(self.model, self.family.norm)(last)

    def _run(self, pixels: Tensor, *, blocks: bool) -> Any:
        options = {**self.call_options, "output_hidden_states": blocks}
        if self.model.config.model_type != "siglip2_vision_model":
            return self.model(pixels, **options)
        p = self.model.config.patch_size  # SigLIP 2 of variable aspect takes patches instead of images
        patches = pixels.unfold(2, p, p).unfold(3, p, p)  # (B, 3, h, w, p, p)
        h, w = patches.shape[2:4]
        return self.model(
            patches.permute(0, 2, 3, 4, 5, 1).flatten(1, 2).flatten(2),  # (B, h w, p p 3)
            pixel_attention_mask=pixels.new_ones(len(pixels), h * w, dtype=torch.long),
            spatial_shapes=torch.tensor([[h, w]] * len(pixels), device=pixels.device),
            **options,
        )

    def _block(self, hidden: Any, last: Tensor, layer: int | None = None) -> Tensor:
        """The chosen block's tokens, through the final norm where the model has one for all tokens."""
        if not hidden:
            raise ConfigError(f"{self.name} does not say what its blocks compute; leave layer out")
        blocks = hidden[1:]  # the first one is the embedding
        layer = self.layer if layer is None else layer
        assert layer is not None
        if not -len(blocks) <= layer < len(blocks):
            raise ConfigError(f"{self.name} has {len(blocks)} blocks, so there is no layer {layer}")
        block = blocks[layer]
        if block.ndim != last.ndim:
            raise ConfigError(f"{self.name} ({self.model.config.model_type}) cannot be read at a layer")
        if block.ndim == 4:  # the last map of some CNNs went through more layers than the stage
            return last if layer in (-1, len(blocks) - 1) else block
        if not self._final_norms:
            raise ConfigError(f"{self.name}: unic knows no final norm of {self.model.config.model_type}")
        return self._final_norms[0](block)

    def _num_prefix(self, num_tokens: int, pixels: Tensor) -> int:
        if self.family.prefix is not None:
            return self.family.prefix
        config = self.model.config
        patch = getattr(config, "patch_size", None)
        if not isinstance(patch, int) or hasattr(config, "num_detection_tokens"):
            raise ConfigError(
                f"{self.name}: unic cannot tell which tokens of {config.model_type} are patches"
            )
        num_patches = (pixels.shape[-2] // patch) * (pixels.shape[-1] // patch)
        prefix = num_tokens - num_patches
        if prefix < 0:
            raise ConfigError(
                f"{self.name}: {config.model_type} gives {num_tokens} tokens for {num_patches} patches, so they are no "
                f"map of the image"
            )
        return prefix


def load(text: str, options: dict) -> ImageEncoder:
    try:
        import transformers
    except ImportError as error:
        raise ImportError("hf:<repository> needs transformers: pip install 'unic[hf]'") from error
    name = f"hf:{text}"
    folder = Path(text).expanduser()
    source = str(folder) if folder.is_dir() else text
    if _file(source, "config.json", name) is None:
        raise ConfigError(f"{name} has no config.json, so it is no model of transformers")
    # Files are in the folder or in the cache now, and local_files_only keeps transformers from asking about others.
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = transformers.AutoConfig.from_pretrained(source, **local)
        has_notes = any(_file(source, file, name) is not None for file in _PROCESSORS)
        processor = transformers.AutoImageProcessor.from_pretrained(source, **local) if has_notes else None
    except (FileNotFoundError, ConfigError):
        raise
    except Exception as error:  # transformers checks these files little: a wrong one fails anywhere
        raise ConfigError(f"{name} cannot be read by transformers ({first_line(error)})") from error
    vision = getattr(config, "vision_config", config)
    if not hasattr(vision, "num_channels"):
        raise ConfigError(f"{name} is a {config.model_type} model, which sees no images")
    with without_bars():
        tower = _read(source, name)
    facts = _preprocessing(processor, vision, name, options.get("image_size"))
    return HfEncoder(tower, name=text, **{**facts, **options})


def _file(source: str, file: str, name: str) -> Path | None:
    if Path(source).is_dir():
        path = Path(source, file)
        return path if path.is_file() else None
    return hub_file(source, file, reference=name)


def _read(source: str, name: str) -> Any:
    """The image tower with weights in float32; safetensors where there are some, else pickles read as weights only."""
    import transformers

    def read(**options: Any) -> tuple[Any, Mapping[str, Any]]:
        return transformers.AutoModel.from_pretrained(
            source,
            trust_remote_code=False,
            weights_only=True,
            dtype=torch.float32,
            output_loading_info=True,
            **options,
        )

    try:
        try:
            model, info = read(local_files_only=True)
        except OSError:
            if Path(source).is_dir():
                raise
            ask_hub(source, "config.json", reference=name)
            model, info = read()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise FileNotFoundError(f"{name}: no weights found ({first_line(error)})") from error
    except Exception as error:  # from a wrong config.json as well
        raise WeightsError(f"{name}: its weights cannot be read ({first_line(error)})") from error
    tower = getattr(model, "vision_model", model)
    prefix = "" if tower is model else "vision_model."
    unread = (f"{prefix}pooler.",) if _made_for_classifier(tower) else ()
    missing = sorted(
        key
        for key in info["missing_keys"]
        if key.startswith(prefix) and not key.startswith(unread) and not key.endswith("mask_token")
    )
    if missing:
        raise WeightsError(f"{name}: {len(missing)} weights are missing: {', '.join(missing[:10])}")
    return tower


def _made_for_classifier(tower: Any) -> bool:
    """Whether the pooler is BERT's: a dense layer and a tanh."""
    return hasattr(getattr(tower, "pooler", None), "dense")


def _preprocessing(processor: Any, config: Any, name: str, image_size: int | None) -> dict[str, Any]:
    """Mean, std and the size of the picture that the model gets (or the one asked for), as the repository says."""
    facts = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    if processor is None:
        log.warning("%s has no notes about preprocessing; ImageNet's mean and std are used", name)
    elif not getattr(processor, "do_normalize", True):
        facts = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    elif getattr(processor, "image_mean", None) is not None and processor.image_std is not None:
        facts = {"mean": tuple(processor.image_mean), "std": tuple(processor.image_std)}
    return {**facts, "image_size": image_size or _noted_size(processor, name) or _config_size(config)}


def _noted_size(processor: Any, name: str) -> int | None:
    cropped = getattr(processor, "do_center_crop", False) and getattr(processor, "crop_size", None)
    size = dict(cropped or getattr(processor, "size", None) or {})
    sides = {size[key] for key in ("height", "width", "shortest_edge") if size.get(key)}
    if len(sides) > 1:
        raise ConfigError(f"{name} sees images of {size} pixels; unic needs square ones: ?image_size=")
    return sides.pop() if sides else None


def _config_size(config: Any) -> int:
    size = getattr(config, "image_size", None)
    if isinstance(size, int):
        return size
    if isinstance(getattr(config, "num_patches", None), int):  # SigLIP 2 of variable aspect
        return round(config.num_patches**0.5) * config.patch_size
    return size[0] if size else 224
