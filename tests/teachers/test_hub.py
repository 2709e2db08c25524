"""torch.hub repositories in a folder: the three manners of handing out tokens, and sentences for the rest."""

from pathlib import Path

import pytest
import timm
import torch
from inputs import assert_tokens, normalised, random_images

from unic.core.errors import ConfigError
from unic.teachers.load import load_teacher

# Four registers are between class token and patches, as in DINOv2; timm's model computes, the classes only speak.
HUBCONF = '''
import timm
import torch

dependencies = ["torch", "timm"]


def _vit(reg_tokens):
    torch.manual_seed(0)
    return timm.create_model("test_vit", dynamic_img_size=True, reg_tokens=reg_tokens, num_classes=0)


class _Base(torch.nn.Module):
    reg_tokens = 0

    def __init__(self):
        super().__init__()
        self.vit = _vit(self.reg_tokens)
        self.blocks = self.vit.blocks

    def _last(self, x, n):
        return self.vit.forward_intermediates(
            x, indices=n, norm=True, output_fmt="NLC", return_prefix_tokens=True, intermediates_only=True
        )


class Dinov2(_Base):
    reg_tokens = 4

    def forward_features(self, x):
        tokens = self.vit.forward_features(x)
        return {"x_norm_clstoken": tokens[:, 0], "x_norm_patchtokens": tokens[:, 5:]}

    def get_intermediate_layers(self, x, n=1, reshape=False, return_class_token=False, norm=True):
        pairs = self._last(x, n)
        return tuple((patches, prefix[:, 0]) for patches, prefix in pairs)


class Dino(_Base):
    def get_intermediate_layers(self, x, n=1):
        return [torch.cat([prefix, patches], dim=1) for patches, prefix in self._last(x, n)]


class Tokens(_Base):
    def forward_features(self, x):
        return self.vit.forward_features(x)


class Pooled(Dino):
    """As DeiT's repository: forward_features gives the class token alone."""

    def forward_features(self, x):
        return self.vit.forward_features(x)[:, 0]


def dinov2():
    return Dinov2()


def dino():
    return Dino()


def tokens():
    return Tokens()


def pooled():
    return Pooled()


def silent():
    return torch.nn.Linear(2, 2)


def words():
    return "no module"


def broken():
    raise KeyError("no such weights")
'''


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "hubconf.py").write_text(HUBCONF)
    return tmp_path


def oracle(x: torch.Tensor, reg_tokens: int):
    torch.manual_seed(0)
    model = timm.create_model("test_vit", dynamic_img_size=True, reg_tokens=reg_tokens, num_classes=0).eval()
    return model, normalised(x)


@pytest.mark.parametrize(("entry", "registers"), [("dinov2", 4), ("dino", 0), ("tokens", 0), ("pooled", 0)])
def test_every_manner_gives_cls_and_patches(repository: Path, entry: str, registers: int):
    x = random_images(224)
    model, inputs = oracle(x, registers)
    encoder = load_teacher(f"hub:{repository}:{entry}")
    with torch.no_grad():
        tokens = encoder(x)
        expected = model.forward_features(inputs)
    assert encoder.image_size == 224 and encoder.grid == (14, 14)
    assert_tokens(tokens, expected[:, 0], expected[:, 1 + registers :], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("entry", "registers"), [("dinov2", 4), ("dino", 0)])
def test_a_layer_is_read_through_the_final_norm(repository: Path, entry: str, registers: int):
    x = random_images(64)
    model, inputs = oracle(x, registers)
    for layer in (0, 2, -1, -3):
        tokens = load_teacher(f"hub:{repository}:{entry}?layer={layer}&image_size=64")(x)
        ((patches, prefix),) = model.forward_intermediates(
            inputs, [layer], norm=True, output_fmt="NLC", return_prefix_tokens=True, intermediates_only=True
        )
        assert_tokens(tokens, prefix[:, 0].detach(), patches.detach(), rtol=1e-5, atol=1e-5)


def test_image_size_changes_the_grid(repository: Path):
    assert load_teacher(f"hub:{repository}:dinov2?image_size=96").grid == (6, 6)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("silent", "neither forward_features that gives class and patch tokens nor get_intermediate_layers"),
        ("words", "gives a str, expected a torch module"),
        ("broken", "KeyError: 'no such weights'"),
        ("absent", "Cannot find callable absent"),
        ("tokens?layer=0", "no get_intermediate_layers; leave layer out"),
        ("dino?layer=9&image_size=64", "so there is no layer 9"),
        ("tokens?image_size=100", "gives no CLS and patch tokens at 100 px"),
    ],
)
def test_mistakes_are_explained(repository: Path, entry: str, words: str):
    with pytest.raises(ConfigError, match=words):
        load_teacher(f"hub:{repository}:{entry}")


def test_a_folder_without_hubconf_is_explained(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no hubconf\.py"):
        load_teacher(f"hub:{tmp_path}:dino")
    with pytest.raises(ConfigError, match="expected hub:<folder or owner/name>:<entry"):
        load_teacher("hub:dino")


def test_code_from_the_network_runs_only_where_it_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The repository is in torch.hub's cache, where a download would put it: its code writes a file."""
    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path))
    cached = tmp_path / "me_mine_v1"
    cached.mkdir()
    (cached / "hubconf.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n{HUBCONF}")
    with pytest.raises(ConfigError, match=r"would run the Python code of github\.com/me/mine:v1 .*\?trust=1"):
        load_teacher("hub:me/mine:v1:dino")
    with pytest.raises(ConfigError, match="would run"):
        load_teacher("hub:me/mine:v1:dino?trust=0")
    assert not (tmp_path / "ran").exists()
    assert load_teacher("hub:me/mine:v1:dino?trust=1&image_size=64").grid == (4, 4)
    assert (tmp_path / "ran").exists()


def test_without_network_a_repository_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens
    with pytest.raises(ConfigError, match="no internet connection"):
        load_teacher("hub:me/absent:dino?trust=1")
