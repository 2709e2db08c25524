"""Text towers: open_clip's own encode_text and encode_image are the oracle."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from unic.core.errors import ConfigError, WeightsError
from unic.teachers import TEACHERS, TeacherSpec
from unic.teachers.load import load_teacher
from unic.teachers.text_tower import load_text_tower

open_clip = pytest.importorskip("open_clip")

TEXT = {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
TIMM = {"timm_model_pretrained": False, "image_size": 160}
VIT = {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 16, "layers": 2}
ARCHITECTURES = {
    "text-vit": {"vision_cfg": VIT},
    "text-vit-custom": {"vision_cfg": VIT, "custom_text": True},
    "text-avg": {"vision_cfg": {**VIT, "pool_type": "avg"}},
    "text-resnet": {"vision_cfg": {"image_size": 64, "width": 8, "head_width": 8, "layers": [1, 1, 1, 1]}},
    "text-coca": {
        "vision_cfg": {
            **VIT, "attentional_pool": True, "attn_pooler_queries": 5, "attn_pooler_heads": 2, "output_tokens": True
        },
        "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {**TEXT, "attn_pooler_heads": 2},
        "custom_text": True,
    },
    "text-map": {
        "vision_cfg": {**TIMM, "timm_model_name": "test_vit2", "timm_pool": "map", "timm_proj": "none"},
        "embed_dim": 64,
    },
    "text-token": {
        "vision_cfg": {**TIMM, "timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": None},
    },
    "text-linear": {
        "vision_cfg": {**TIMM, "timm_model_name": "test_convnext", "timm_pool": "", "timm_proj": "linear"},
    },
    "text-mlp": {
        "vision_cfg": {**TIMM, "timm_model_name": "test_convnext", "timm_pool": "", "timm_proj": "mlp"},
    },
}  # fmt: skip
WITH_MATRIX = {"text-vit", "text-vit-custom", "text-avg", "text-coca", "text-linear"}
WORDS = ["a photo of a dog", "", "ein Hund", "a very long sentence that has more words than the context"] * 80
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@pytest.fixture(autouse=True, scope="module")
def small_architectures(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("open_clip")
    for name, config in ARCHITECTURES.items():
        (folder / f"{name}.json").write_text(json.dumps({"embed_dim": 16, "text_cfg": TEXT, **config}))
    open_clip.add_model_config(folder)


def model_in_file(name: str, path: Path):
    torch.manual_seed(0)
    model = open_clip.create_model(name).eval()
    for key, parameter in model.named_parameters():
        if key != "logit_scale":
            torch.nn.init.normal_(parameter, std=0.2)
    torch.save({"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, path)
    return model


def pixels(size: int) -> torch.Tensor:
    return torch.randint(
        0, 256, (3, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_texts_and_images_meet_in_open_clips_space(tmp_path: Path, name: str):
    model = model_in_file(name, tmp_path / "m.pt")
    reference = f"open_clip:{name}/{tmp_path}/m.pt"
    encoder, tower = load_teacher(reference), load_text_tower(reference)
    x = pixels(encoder.image_size)
    inputs = (x / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    with torch.no_grad():
        texts = model.encode_text(open_clip.get_tokenizer(name)(WORDS), normalize=True)
        images = model.encode_image(inputs, normalize=True)
        cls = encoder(x).cls
    torch.testing.assert_close(tower.encode(WORDS), texts, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(tower.project(cls), images, rtol=1e-4, atol=1e-5)
    assert tower.logit_scale == pytest.approx(float(model.logit_scale.detach().exp()))
    assert (tower.projection is not None) == (name in WITH_MATRIX)
    if tower.projection is not None:
        matrix = torch.nn.functional.normalize(cls @ tower.projection, dim=-1)
        torch.testing.assert_close(matrix, images, rtol=1e-4, atol=1e-5)


def test_towers_with_random_weights_belong_together():
    encoder = load_teacher("open_clip:text-vit?pretrained=0")
    tower = load_text_tower("open_clip:text-vit?pretrained=0&image_size=32")
    assert tower.projection is not None
    torch.testing.assert_close(tower.projection, encoder.model.proj)


def test_no_gradient_and_no_image_tower_stay(tmp_path: Path):
    tower = load_text_tower("open_clip:text-vit?pretrained=0")
    assert not any(p.requires_grad for p in tower.parameters()) and not tower.training
    assert not [key for key in tower.state_dict() if "visual" in key]
    assert not tower.encode(["a"]).requires_grad


@pytest.fixture
def published(tmp_path: Path) -> Iterator[str]:
    """A teacher of the CLIP type by name: its file holds both towers."""
    model_in_file("text-vit", tmp_path / "m.pt")
    facts = {
        "model": "test_vit",
        "weights": lambda: tmp_path / "m.pt",
        "licence": "none",
        "source": "https://",
    }
    list(TEACHERS)
    TEACHERS.add("text_test", TeacherSpec(name="text_test", text_tower="text-vit", **facts))
    TEACHERS.add("text_other", TeacherSpec(name="text_other", text_tower="text-coca", **facts))
    TEACHERS.add("text_none", TeacherSpec(name="text_none", **facts))
    yield "text_test"
    for name in ("text_test", "text_other", "text_none"):
        del TEACHERS._entries[name]


def test_a_published_teacher_has_its_text_tower_in_the_same_file(tmp_path: Path, published: str):
    same = load_text_tower(f"open_clip:text-vit/{tmp_path}/m.pt").encode(WORDS)
    torch.testing.assert_close(load_text_tower(f"{published}?image_size=64").encode(WORDS), same)
    with pytest.raises(WeightsError, match="another architecture"):
        load_text_tower("text_other")


def test_teachers_without_texts_are_explained(published: str):
    with pytest.raises(ConfigError, match=r"no text tower; teachers that have one: .*text_test"):
        load_text_tower("text_none")
    with pytest.raises(ConfigError, match="only open_clip:"):
        load_text_tower("timm:resnet18")
    with pytest.raises(ConfigError, match="unknown teacher"):
        load_text_tower("nothing_like_it")


def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub at a port where nobody listens."""
    url = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", url)


def test_a_tokenizer_that_is_not_here_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "text-hub.json").write_text(
        json.dumps(
            {"embed_dim": 16, "vision_cfg": VIT, "text_cfg": {**TEXT, "hf_tokenizer_name": "me/words"}}
        )
    )
    open_clip.add_model_config(tmp_path / "text-hub.json")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    no_network(monkeypatch)
    load_teacher("open_clip:text-hub?pretrained=0")  # images need no words
    with pytest.raises(
        FileNotFoundError, match="the tokenizer of open_clip:text-hub: not in the hub's cache"
    ):
        load_text_tower("open_clip:text-hub?pretrained=0")
