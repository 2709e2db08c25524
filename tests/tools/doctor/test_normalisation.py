"""Whether a wrong mean and std are found: on networks whose BatchNorm has seen photographs under a known one."""

import copy
from pathlib import Path

import pytest
import timm
import torch
from doctor_images import Colours, photographs
from torch import nn

from unic.core.keyed_random import seeded_torch
from unic.models.timm_encoder import TimmEncoder, create_timm
from unic.teachers import TEACHERS, TeacherSpec
from unic.teachers.load import load_teacher
from unic.tools.doctor.normalisation import (
    CONVENTIONS,
    Normalisation,
    better_fit,
    declared,
    published,
    try_normalisations,
)
from unic.tools.doctor.sample_images import read_sample_images

CPU = torch.device("cpu")
CLEARLY_DIFFERENT = ("ImageNet", "0.5/0.5", "0/1")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> torch.Tensor:
    return read_sample_images(
        photographs(tmp_path_factory.mktemp("photographs"), 96), [32], 96, batch_size=96
    ).views[32]


@pytest.fixture(scope="module", params=CLEARLY_DIFFERENT)
def trained(request, images: torch.Tensor) -> tuple[str, nn.Module]:
    """A network that remembers other photographs (half of them, upside down) under a normalisation."""
    with seeded_torch(0, "test"):
        model = create_timm("resnet10t")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain mean
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in CONVENTIONS[request.param])
    with torch.no_grad():
        model.train()((images[:48].flip(2) / 255 - mean) / std)
    return request.param, model.eval()


def encoder(model: nn.Module, convention: str) -> TimmEncoder:
    mean, std = CONVENTIONS[convention]
    return TimmEncoder(copy.deepcopy(model), name="test", image_size=32, mean=mean, std=std).eval()


@pytest.mark.parametrize("own", CLEARLY_DIFFERENT)
def test_a_wrong_normalisation_is_found_and_a_right_one_is_left_alone(
    trained: tuple[str, nn.Module], images: torch.Tensor, own: str
):
    right, model = trained
    better = better_fit(try_normalisations(encoder(model, own), images[48:], CPU))
    if own == right:
        assert better is None
    else:
        assert better is not None
        # CLIP's and ImageNet's are hard to tell apart
        assert better.convention == right or {better.convention, right} == {"ImageNet", "CLIP"}


def test_trying_changes_nothing_for_good(trained: tuple[str, nn.Module], images: torch.Tensor):
    _, model = trained
    test = encoder(model, "0.5/0.5")
    before = test(images[:4])
    own, *others = try_normalisations(test, images[:8], CPU)
    torch.testing.assert_close(test(images[:4]).cls, before.cls, rtol=0, atol=0)
    assert own.cosine == pytest.approx(1, abs=1e-5)
    assert [trial.convention for trial in others] == ["ImageNet", "0/1", "CLIP"]
    assert all(trial.cosine is not None and trial.cosine < 0.99 for trial in others)


def test_misfit_is_the_median_divergence_of_normal_distributions(
    trained: tuple[str, nn.Module], images: torch.Tensor
):
    _, model = trained
    test = encoder(model, "0/1")
    with torch.no_grad():
        maps = test.model.conv1[0](images[:8] / 255)
    layer = next(module for module in test.modules() if isinstance(module, nn.BatchNorm2d))
    here = torch.distributions.Normal(maps.mean((0, 2, 3)), (maps.var((0, 2, 3)) + layer.eps).sqrt())
    training = torch.distributions.Normal(layer.running_mean, (layer.running_var + layer.eps).sqrt())
    expected = torch.distributions.kl_divergence(here, training).median().item()
    assert try_normalisations(test, images[:8], CPU)[0].misfit == pytest.approx(expected, rel=1e-3)


def test_without_a_batchnorm_that_was_trained_nothing_is_said_about_the_fit(images: torch.Tensor):
    untrained = load_teacher("timm:resnet10t?pretrained=0&image_size=32")
    for test in (untrained, Colours(name="colours", grid=2)):
        trials = try_normalisations(test, images[:8], CPU)
        assert all(trial.misfit is None for trial in trials)
        assert better_fit(trials) is None


def test_a_single_image_tells_no_cosine(images: torch.Tensor):
    trials = try_normalisations(Colours(name="colours", grid=2), images[:1], CPU)
    assert all(trial.cosine is None for trial in trials)


def test_a_known_normalisation_is_called_by_its_name():
    own = declared(Colours(name="colours", grid=2))
    assert own == CONVENTIONS["0/1"]
    assert own.name() == "0/1"
    assert Normalisation((0.49,) * 3, (0.5,) * 3).name() is None


def spec(**facts) -> TeacherSpec:
    return TeacherSpec(
        **{"name": "mine", "weights": lambda: Path("none"), "licence": "-", "source": "-", **facts}
    )


def test_the_facts_of_named_weights_are_those_of_timm(monkeypatch):
    model = "vit_tiny_patch16_224.augreg_in21k"
    monkeypatch.setitem(TEACHERS._entries, "mine", spec(model=model))
    facts = timm.get_pretrained_cfg(model)
    assert facts is not None
    known = published("mine?image_size=64", Colours(name="mine", grid=2))
    assert known.normalisation == (facts.mean, facts.std)
    assert known.image_size == 224


def test_of_an_architecture_alone_only_the_spec_tells_the_size(monkeypatch):
    monkeypatch.setitem(TEACHERS._entries, "mine", spec(model="vit_tiny_patch16_224", image_size=96))
    assert published("mine", Colours(name="mine", grid=2)) == (None, 96)


def test_the_facts_of_a_model_of_timm_are_those_beside_its_weights():
    reference = "timm:resnet10t?pretrained=0&image_size=32"
    known = published(reference, load_teacher(reference))
    facts = timm.get_pretrained_cfg("resnet10t")
    assert facts is not None
    assert known == ((facts.mean, facts.std), facts.input_size[-1])
