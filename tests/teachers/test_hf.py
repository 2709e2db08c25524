"""Backbones of transformers: every family's own forward is the oracle, written out with the right norm and tokens."""

import json
import pickle
import time
from pathlib import Path

import inputs
import pytest
import torch
from hub_cache import cache_repository
from inputs import assert_tokens, random_images

from unic.core.errors import ConfigError, UnicError, WeightsError
from unic.teachers.load import load_teacher

transformers = pytest.importorskip("transformers")

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
VIT = {**SMALL, "image_size": 32, "patch_size": 8}
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def normalised(x: torch.Tensor) -> torch.Tensor:
    return inputs.normalised(x, MEAN, STD)


def write(folder: Path, model, size: int = 32, **notes) -> None:
    torch.manual_seed(0)
    for parameter in model.parameters():  # fresh biases are 0 and norms 1, which would hide a forgotten norm
        torch.nn.init.normal_(parameter, std=0.2)
    model.eval().save_pretrained(folder)
    facts = {
        "image_processor_type": "ViTImageProcessor",
        "image_mean": MEAN,
        "image_std": STD,
        "size": {"height": size, "width": size},
        **notes,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(facts))


def dinov2():
    return transformers.Dinov2Model(transformers.Dinov2Config(**VIT))


def dinov2_registers():
    return transformers.Dinov2WithRegistersModel(
        transformers.Dinov2WithRegistersConfig(**VIT, num_register_tokens=3)
    )


def dinov3_vit():
    return transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**VIT, num_register_tokens=4))


def vit():
    return transformers.ViTModel(transformers.ViTConfig(**VIT))


def deit():
    return transformers.DeiTModel(transformers.DeiTConfig(**VIT))


def clip_tower():
    return transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**VIT))


def clip(kind: str = "CLIP"):
    text = {**SMALL, "vocab_size": 99, "max_position_embeddings": 8, "projection_dim": 16}
    config = getattr(transformers, f"{kind}Config")(text_config=text, vision_config=VIT, projection_dim=16)
    return getattr(transformers, f"{kind}Model")(config)


def metaclip_2():
    return clip("MetaClip2")


def siglip():
    return clip("Siglip")


def ijepa():
    return transformers.IJepaModel(transformers.IJepaConfig(**VIT))


def beit():
    return transformers.BeitModel(
        transformers.BeitConfig(**VIT, use_mean_pooling=True, use_relative_position_bias=True)
    )


def convnext():
    return transformers.ConvNextModel(
        transformers.ConvNextConfig(hidden_sizes=[8, 8, 16, 32], depths=[1, 1, 1, 1])
    )


def resnet():
    return transformers.ResNetModel(
        transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 16, 32], depths=[1, 1, 1, 1])
    )


def bit():
    """Its last map is normed after the last stage."""
    return transformers.BitModel(
        transformers.BitConfig(
            embedding_size=8, hidden_sizes=[8, 8, 16, 32], depths=[1, 1, 1, 1], num_groups=4
        )
    )


def dinov3_convnext():
    return transformers.DINOv3ConvNextModel(
        transformers.DINOv3ConvNextConfig(hidden_sizes=[8, 8, 16, 32], depths=[1, 1, 1, 1])
    )


def swin():
    return transformers.SwinModel(
        transformers.SwinConfig(
            image_size=64, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4
        )
    )


def token_after(prefix: int):
    """Models whose last_hidden_state is normed: CLS first, then others, then patches."""

    def expected(model, x):
        last = model(x).last_hidden_state
        return last[:, 0], last[:, prefix:]

    return expected


def clip_expected(model, x):
    tower = getattr(model, "vision_model", model)
    last = tower(x).last_hidden_state
    return tower.post_layernorm(last[:, 0]), tower.post_layernorm(last[:, 1:])


def siglip_expected(model, x):
    output = model.vision_model(x)
    return output.pooler_output, output.last_hidden_state


def mean_of_patches(model, x):
    last = model(x).last_hidden_state
    return last.mean(1), last


def beit_expected(model, x):
    last = model(x).last_hidden_state[:, 1:]
    return model.pooler.layernorm(last.mean(1)), last


def cnn_expected(model, x):
    output = model(x)
    return output.pooler_output.flatten(1), output.last_hidden_state.flatten(2).transpose(1, 2)


FAMILIES = {
    "dinov2": (dinov2, 32, token_after(1), 16),
    "dinov2 with registers": (dinov2_registers, 32, token_after(4), 16),
    "dinov3 vit": (dinov3_vit, 32, token_after(5), 16),
    "vit": (vit, 32, token_after(1), 16),
    "deit": (deit, 32, token_after(2), 16),
    "clip tower": (clip_tower, 32, clip_expected, 16),
    "clip": (clip, 32, clip_expected, 16),
    "metaclip 2": (metaclip_2, 32, clip_expected, 16),
    "siglip": (siglip, 32, siglip_expected, 16),
    "i-jepa": (ijepa, 32, mean_of_patches, 16),
    "beit": (beit, 32, beit_expected, 16),
    "convnext": (convnext, 64, cnn_expected, 4),
    "resnet": (resnet, 64, cnn_expected, 4),
    "bit": (bit, 64, cnn_expected, 4),
    "dinov3 convnext": (dinov3_convnext, 64, token_after(1), 4),
    "swin": (swin, 64, mean_of_patches, 64),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_cls_and_patches_are_those_of_the_family(tmp_path: Path, family: str):
    build, size, expected, num_patches = FAMILIES[family]
    model = build()
    write(tmp_path, model, size)
    encoder = load_teacher(f"hf:{tmp_path}")
    x = random_images(size)
    with torch.no_grad():
        tokens = encoder(x)
        cls, patches = expected(model, normalised(x))
    assert patches.shape[1] == num_patches and encoder.image_size == size
    assert_tokens(tokens, cls, patches, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "family", [family for family in FAMILIES if family not in ("dinov3 convnext", "swin")]
)
def test_the_last_layer_is_the_default(tmp_path: Path, family: str):
    build, size, _, _ = FAMILIES[family]
    write(tmp_path, build(), size)
    x = random_images(size)
    default, last = load_teacher(f"hf:{tmp_path}"), load_teacher(f"hf:{tmp_path}?layer=-1")
    assert_tokens(last(x), default(x).cls, default(x).patches, rtol=1e-5, atol=1e-5)
    first = load_teacher(f"hf:{tmp_path}?layer=0")
    assert first(x).patches.std() != default(x).patches.std()


def test_an_earlier_layer_goes_through_the_final_norm(tmp_path: Path):
    model = dinov2_registers()
    write(tmp_path, model)
    x = random_images(32)
    with torch.no_grad():
        hidden = model(normalised(x), output_hidden_states=True).hidden_states[-2]
    tokens = load_teacher(f"hf:{tmp_path}?layer=-2")(x)
    torch.testing.assert_close(tokens.cls, model.layernorm(hidden)[:, 0].detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(tokens.patches, model.layernorm(hidden)[:, 4:].detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(load_teacher(f"hf:{tmp_path}?layer=0")(x).cls, tokens.cls)  # of two blocks


def test_siglip_2_of_variable_aspect_gets_patches_as_its_own_processor_cuts_them(tmp_path: Path):
    vision = {**SMALL, "patch_size": 8, "num_patches": 16}
    text = {**SMALL, "vocab_size": 99, "max_position_embeddings": 8}
    model = transformers.Siglip2Model(transformers.Siglip2Config(text_config=text, vision_config=vision))
    write(tmp_path, model)
    notes = transformers.Siglip2ImageProcessor(
        image_mean=MEAN, image_std=STD, patch_size=8, max_num_patches=16
    )
    notes.save_pretrained(tmp_path)
    x = random_images(32)
    with torch.no_grad():
        output = model.vision_model(**notes(list(x), return_tensors="pt"))
    tokens = load_teacher(f"hf:{tmp_path}")(x)
    assert_tokens(tokens, output.pooler_output, output.last_hidden_state, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("build", [dinov2, dinov3_vit, vit, clip, siglip, ijepa, beit])
def test_image_size_changes_the_grid(tmp_path: Path, build):
    write(tmp_path, build())
    encoder = load_teacher(f"hf:{tmp_path}?image_size=48")
    assert encoder.grid == (6, 6)
    with torch.no_grad():
        assert encoder(random_images(32)).patches.shape == (2, 36, 32)


def test_cls_can_be_the_mean_of_the_patches(tmp_path: Path):
    write(tmp_path, dinov2())
    tokens = load_teacher(f"hf:{tmp_path}?cls=pooled")(random_images(32))
    torch.testing.assert_close(tokens.cls, tokens.patches.mean(1))
    write(tmp_path, ijepa())
    with pytest.raises(ConfigError, match="no class token"):
        load_teacher(f"hf:{tmp_path}?cls=token")


def test_the_size_is_that_of_the_crop_and_half_precision_is_not_kept(tmp_path: Path):
    """DINOv2 notes a resize to 256 and a crop to 224, and trained at 518."""
    crop = {"size": {"shortest_edge": 40}, "crop_size": {"height": 24, "width": 24}, "do_center_crop": True}
    write(tmp_path, dinov2().half(), image_processor_type="BitImageProcessor", **crop)
    encoder = load_teacher(f"hf:{tmp_path}")
    assert encoder.image_size == 24 and encoder.grid == (3, 3)
    assert encoder(random_images(24)).cls.dtype == torch.float32


def test_without_notes_imagenet_is_used_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write(tmp_path, dinov2())
    (tmp_path / "preprocessor_config.json").unlink()
    encoder = load_teacher(f"hf:{tmp_path}")
    assert "ImageNet's mean and std" in caplog.text
    torch.testing.assert_close(encoder.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))
    assert encoder.image_size == 32


def test_an_absent_pooler_does_not_enter_the_fingerprint(tmp_path: Path):
    """ViT backbones are published without the pooler, which transformers then makes up."""
    model = transformers.ViTModel(transformers.ViTConfig(**VIT), add_pooling_layer=False)
    write(tmp_path, model)
    encoder = load_teacher(f"hf:{tmp_path}")
    assert not [key for key in encoder.model.state_dict() if "pooler" in key]


def test_missing_weights_are_refused(tmp_path: Path):
    from safetensors.torch import load_file, save_file

    write(tmp_path, dinov2())
    state = load_file(tmp_path / "model.safetensors")
    state.pop("layernorm.weight")
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match=r"1 weights are missing: layernorm\.weight"):
        load_teacher(f"hf:{tmp_path}")


class Malicious:
    def __reduce__(self):
        return (Path.touch, (Path("ran"),))


def test_a_pickle_with_code_is_refused_and_one_without_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    model = dinov2()
    write(tmp_path / "m", model)
    (tmp_path / "m" / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "m" / "pytorch_model.bin")
    load_teacher("hf:m")
    torch.save({**model.state_dict(), "x": Malicious()}, tmp_path / "m" / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="cannot be read"):
        load_teacher("hf:m")
    (tmp_path / "m" / "pytorch_model.bin").write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(WeightsError, match="cannot be read"):
        load_teacher("hf:m")
    assert not (tmp_path / "ran").exists()


def test_mistakes_are_explained(tmp_path: Path):
    text = transformers.BertModel(transformers.BertConfig(**SMALL, vocab_size=99))
    text.save_pretrained(tmp_path / "bert")
    with pytest.raises(ConfigError, match="bert model, which sees no images"):
        load_teacher(f"hf:{tmp_path}/bert")
    with pytest.raises(ConfigError, match=r"no config\.json"):
        (tmp_path / "empty").mkdir()
        load_teacher(f"hf:{tmp_path}/empty")
    (tmp_path / "empty" / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read by transformers"):
        load_teacher(f"hf:{tmp_path}/empty")
    (tmp_path / "empty" / "config.json").write_text(
        '{"model_type": "mine", "auto_map": {"AutoConfig": "a.B"}}'
    )
    with pytest.raises(ConfigError, match="cannot be read by transformers"):
        load_teacher(f"hf:{tmp_path}/empty")
    with pytest.raises(ConfigError, match="neither a folder here nor the name"):
        load_teacher(f"hf:{tmp_path}/absent")
    write(tmp_path / "m", dinov2())
    with pytest.raises(ConfigError, match="has 2 blocks, so there is no layer 2"):
        load_teacher(f"hf:{tmp_path}/m?layer=2")
    (tmp_path / "m" / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="no weights found"):
        load_teacher(f"hf:{tmp_path}/m")
    write(tmp_path / "mae", transformers.ViTMAEModel(transformers.ViTMAEConfig(**VIT)))
    with pytest.raises(ConfigError, match="5 tokens for 16 patches"):
        load_teacher(f"hf:{tmp_path}/mae")
    write(
        tmp_path / "yolos",
        transformers.YolosModel(
            transformers.YolosConfig(**{**VIT, "image_size": [32, 32]}, num_detection_tokens=3)
        ),
    )
    with pytest.raises(ConfigError, match="cannot tell which tokens of yolos are patches"):
        load_teacher(f"hf:{tmp_path}/yolos")


@pytest.mark.parametrize(
    ("field", "value"),
    [("hidden_act", "os.system"), ("num_attention_heads", 0), ("hidden_size", "x"), ("id2label", 5)],
)
def test_a_wrong_note_is_a_sentence_of_ours(tmp_path: Path, field: str, value: object):
    write(tmp_path / "m", dinov2())
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps(config | {field: value}))
    with pytest.raises(UnicError, match=r"hf:.*(cannot be read|cannot be read by transformers)"):
        load_teacher(f"hf:{tmp_path}/m")


def test_what_the_cache_has_needs_no_network(hub_cache: Path):
    model = dinov2()
    write(cache_repository(hub_cache, "me/mine"), model)
    start = time.monotonic()
    x = random_images(32)
    with torch.no_grad():
        expected = model(normalised(x)).pooler_output
    torch.testing.assert_close(load_teacher("hf:me/mine")(x).cls, expected, rtol=1e-5, atol=1e-5)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("lost", ["model.safetensors", "preprocessor_config.json", "config.json"])
def test_without_network_a_missing_file_is_explained_at_once(no_network: None, hub_cache: Path, lost: str):
    """Also when others are in the cache: mean and std must not be guessed because the network is down."""
    folder = cache_repository(hub_cache, "me/mine", absent=("processor_config.json",))
    write(folder, dinov2())
    (folder / lost).unlink()
    start = time.monotonic()
    with pytest.raises(FileNotFoundError, match=r"hf:me/mine: .*check the name and the network"):
        load_teacher("hf:me/mine")
    assert time.monotonic() - start < 10
