"""What the student's blocks give, cut so that their gradients need no putting together."""

from unic.method.types import Pixels, Tokens
from unic.models.timm_encoder import TimmEncoder


def split_block_outputs(encoder: TimmEncoder, images: Pixels) -> list[Tokens]:
    """`encoder.block_outputs(images)`, for timm's VisionTransformer.

    timm takes CLS and patches out of a block's output by two slices, each of which has a gradient as large as that
    output, nearly all of it zero, to be added up. The pieces of one split have theirs side by side.
    """
    model = encoder.model
    x = model.patch_embed(encoder.prepare(images))
    x = model.norm_pre(model.patch_drop(model._pos_embed(x)))
    outputs = []
    for block in model.blocks:
        x = block(x)
        prefix, patches = x.split([model.num_prefix_tokens, x.shape[1] - model.num_prefix_tokens], dim=1)
        outputs.append(Tokens(prefix[:, 0], patches))
    return outputs
