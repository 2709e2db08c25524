"""At which size encoders extract_maps, and what they are given to extract_maps at."""

import logging

import pytest
import torch
from PIL import Image
from tiny import CPU, cnn_encoder, picture, vit, vit_encoder

from unic.core.errors import ConfigError, DataError, WeightsError
from unic.data.crop import evaluation_view
from unic.models.timm_encoder import TimmEncoder
from unic.tools.visualize.extract import FINE, NamedEncoder, extract_maps


def seen(
    encoder: TimmEncoder, *pictures: Image.Image, image_size: int | None = None, attention: bool = False
):
    shown = NamedEncoder(encoder, "tiny")
    return extract_maps(
        shown, pictures or [picture()], image_size=image_size, attention=attention, device=CPU
    )


def test_maps_are_fine_where_the_encoder_can_be_resized():
    for encoder in (vit_encoder(), cnn_encoder()):
        found = seen(encoder)
        assert found.maps.shape[-2:] == (FINE, FINE) and found.side == FINE * encoder.stride
    assert found.size == "32 x 32 patches at 1024 px"


def test_an_encoder_with_a_finer_map_of_its_own_keeps_it():
    encoder = TimmEncoder(vit(img_size=272, embed_dim=6, depth=1), name="tiny", image_size=272)
    assert seen(encoder).maps.shape[-2:] == (34, 34)


def test_an_encoder_that_cannot_be_resized_is_seen_at_its_own_size(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    encoder = vit_encoder()
    resize = TimmEncoder.at_size

    def at_size(self: TimmEncoder, height: int, width: int):
        if height != 32:
            raise ConfigError("only 32 px")
        return resize(self, height, width)

    monkeypatch.setattr(TimmEncoder, "at_size", at_size)
    with caplog.at_level(logging.INFO):
        assert seen(encoder).side == 32
    assert "tiny is shown at its own size: only 32 px" in caplog.text
    with pytest.raises(ConfigError, match="only 32 px"):  # a size that was asked for is not another one
        seen(encoder, image_size=64)


def test_maps_are_the_encoders_own_for_the_square_at_the_centre():
    encoder = vit_encoder()
    pictures = [picture(), picture(1, (60, 80))]
    found = seen(encoder, *pictures, image_size=45)  # brought down to whole patches
    sized = encoder.at_size(40, 40)
    for number, image in enumerate(pictures):
        expected = sized.maps(sized.normalize(evaluation_view(image, 40)[None]))[0].patches
        torch.testing.assert_close(found.maps[number : number + 1], expected)


def test_looking_for_attention_does_not_change_the_maps():
    encoder = vit_encoder()
    assert seen(encoder, attention=True).maps.equal(seen(encoder).maps)


def test_what_is_smaller_than_a_patch_is_a_sentence():
    with pytest.raises(ConfigError, match="image size 7 is smaller than one patch of tiny; give at least 8"):
        seen(vit_encoder(), image_size=7)
    with pytest.raises(DataError, match="of 40 x 5 pixels is smaller than one patch of tiny"):
        seen(vit_encoder(), picture(), picture(1, (40, 5)))


def test_features_that_are_not_finite_are_a_sentence():
    encoder = vit_encoder()
    encoder.model.norm.bias.fill_(torch.nan)
    with pytest.raises(WeightsError, match="tiny: the patch features of a picture are not finite"):
        seen(encoder)
