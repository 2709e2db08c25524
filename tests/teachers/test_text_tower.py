"""Text towers: open_clip's own encode_text and encode_image are the oracle."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from inputs import CLIP_MEAN, CLIP_STD, normalised, random_images

from unic.core.errors import ConfigError, WeightsError
from unic.teachers import TEACHERS, TeacherSpec
from unic.teachers.load import load_teacher
from unic.teachers.text_tower import load_text_tower

open_clip = pytest.importorskip("open_clip")
from small_open_clip import ARCHITECTURES, TEXT, VIT, add_architectures, model_in_file  # noqa: E402

WITH_MATRIX = {"unic-vit", "unic-vit-custom", "unic-avg", "unic-avg-late", "unic-coca", "unic-linear"}
WORDS = ["a photo of a dog", "", "ein Hund", "a very long sentence that has more words than the context"] * 80


@pytest.fixture(autouse=True, scope="module")
def small_architectures(tmp_path_factory: pytest.TempPathFactory):
    add_architectures(tmp_path_factory.mktemp("open_clip"))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_texts_and_images_meet_in_open_clips_space(tmp_path: Path, name: str):
    model = model_in_file(name, tmp_path / "m.pt")
    reference = f"open_clip:{name}/{tmp_path}/m.pt"
    encoder, tower = load_teacher(reference), load_text_tower(reference)
    x = random_images(encoder.image_size, num=3)
    with torch.no_grad():
        texts = model.encode_text(open_clip.get_tokenizer(name)(WORDS), normalize=True)
        images = model.encode_image(normalised(x, CLIP_MEAN, CLIP_STD), normalize=True)
        cls = encoder(x).cls
    torch.testing.assert_close(tower.encode(WORDS), texts, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(tower.project(cls), images, rtol=1e-4, atol=1e-5)
    assert tower.logit_scale == pytest.approx(float(model.logit_scale.detach().exp()))
    assert (tower.projection is not None) == (name in WITH_MATRIX)
    if tower.projection is not None:
        matrix = torch.nn.functional.normalize(cls @ tower.projection, dim=-1)
        torch.testing.assert_close(matrix, images, rtol=1e-4, atol=1e-5)


def test_towers_with_random_weights_belong_together():
    encoder = load_teacher("open_clip:unic-vit?pretrained=0")
    tower = load_text_tower("open_clip:unic-vit?pretrained=0&image_size=32")
    assert tower.projection is not None
    torch.testing.assert_close(tower.projection, encoder.model.proj)


def test_no_gradient_and_no_image_tower_stay(tmp_path: Path):
    tower = load_text_tower("open_clip:unic-vit?pretrained=0")
    assert not any(p.requires_grad for p in tower.parameters()) and not tower.training
    assert not [key for key in tower.state_dict() if "visual" in key]
    assert not tower.encode(["a"]).requires_grad


@pytest.fixture
def published(tmp_path: Path) -> Iterator[str]:
    """A teacher of the CLIP type by name: its file holds both towers."""
    model_in_file("unic-vit", tmp_path / "m.pt")
    facts = {
        "model": "test_vit",
        "weights": lambda: tmp_path / "m.pt",
        "licence": "none",
        "source": "https://",
    }
    list(TEACHERS)
    TEACHERS.add("text_test", TeacherSpec(name="text_test", text_tower="unic-vit", **facts))
    TEACHERS.add("text_other", TeacherSpec(name="text_other", text_tower="unic-coca", **facts))
    TEACHERS.add("text_none", TeacherSpec(name="text_none", **facts))
    yield "text_test"
    for name in ("text_test", "text_other", "text_none"):
        del TEACHERS._entries[name]


def test_a_published_teacher_has_its_text_tower_in_the_same_file(tmp_path: Path, published: str):
    same = load_text_tower(f"open_clip:unic-vit/{tmp_path}/m.pt").encode(WORDS)
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


def test_a_tokenizer_that_is_not_here_is_explained(no_network: None, tmp_path: Path):
    text = {**TEXT, "hf_tokenizer_name": "me/words"}
    add_architectures(tmp_path, {"text-hub": {"vision_cfg": VIT, "text_cfg": text}})
    load_teacher("open_clip:text-hub?pretrained=0")  # images need no words
    with pytest.raises(
        FileNotFoundError, match="the tokenizer of open_clip:text-hub: not in the hub's cache"
    ):
        load_text_tower("open_clip:text-hub?pretrained=0")
