"""`unic visualize` as a user meets it: pictures and their list, and one sentence for every mistake."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import CPU, cnn_encoder, picture, vit_encoder

from unic.cli import main
from unic.core.errors import ConfigError, DataError
from unic.data.decode import BadImage
from unic.tools.visualize.extract import NamedEncoder
from unic.tools.visualize.options import VisualizeOptions
from unic.tools.visualize.output import SavedPicture, write_album
from unic.tools.visualize.panels import GAP, SIDE, EncoderColumn, ImagePanel, draw, shortened
from unic.tools.visualize.read_photographs import read_photographs
from unic.tools.visualize.visualize import visualize

CNN = "timm:test_convnext?pretrained=0&image_size=64"
VIT = "timm:test_vit?pretrained=0"
PICTURES = {"a.jpg": picture(0), "b.jpg": picture(1, (50, 60))}


def index(folder: Path) -> dict[str, dict]:
    return {entry["file"]: entry for entry in json.loads((folder / "pictures.json").read_text())}


def run(folder: Path, *encoders: NamedEncoder, **choices) -> list[Path]:
    return visualize(encoders, PICTURES, VisualizeOptions(image_size=64, **choices), folder, device=CPU)


def attempt(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    try:
        code = main(["visualize", *words, "--device", "cpu"])
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    return code, " ".join(capsys.readouterr().err.split())


def test_a_vit_and_a_cnn_are_drawn_in_every_way(tmp_path: Path):
    shown = NamedEncoder(vit_encoder("v"), "v", "v"), NamedEncoder(cnn_encoder("c"), "c")
    paths = run(tmp_path, *shown)
    assert [path.name for path in paths] == ["pca_0.png", "similarity_0.png", "attention_0.png"]
    entries = index(tmp_path)
    assert list(entries) == [path.name for path in paths]
    for file, entry in entries.items():
        assert entry["kind"] == file.split("_")[0] and "v, c" in entry["title"] and entry["caption"]
        with Image.open(tmp_path / file) as image:
            assert image.width > 3 * SIDE and image.height > 2 * SIDE


def test_the_same_command_gives_the_same_bytes(tmp_path: Path):
    first, second = (
        [path.read_bytes() for path in run(tmp_path / name, NamedEncoder(vit_encoder(), "v"), basis="shared")]
        for name in "ab"
    )
    assert first == second


def test_heads_have_pictures_of_their_own_with_at_most_six_each(tmp_path: Path):
    vit = vit_encoder(embed_dim=64, num_heads=8)
    paths = run(
        tmp_path, NamedEncoder(cnn_encoder(), "c"), NamedEncoder(vit, "v"), kinds=("attention",), heads=True
    )
    assert [path.name for path in paths] == ["attention_0.png", "attention_1.png", "attention_2.png"]
    titles = [entry["title"] for entry in index(tmp_path).values()]
    assert titles[1].endswith("heads 1 to 6 of 8, v") and titles[2].endswith("heads 7 to 8 of 8, v")


def test_without_attention_it_is_left_out_unless_it_is_asked_for(tmp_path: Path):
    cnn = NamedEncoder(cnn_encoder(), "c")
    assert [path.name for path in run(tmp_path, cnn)] == ["pca_0.png", "similarity_0.png"]
    for asked in ({"kinds": ("pca", "attention")}, {"heads": True}):
        with pytest.raises(
            ConfigError, match=r"no encoder has attention to show \(c: no attention \(CNN\)\)"
        ):
            run(tmp_path / "other", cnn, **asked)
    assert not list((tmp_path / "other").iterdir())


def test_an_encoder_that_says_the_same_of_everything_gets_a_note(tmp_path: Path):
    encoder = vit_encoder()
    encoder.model.norm.weight.zero_()
    assert len(run(tmp_path, NamedEncoder(encoder, "v"), NamedEncoder(vit_encoder(), "w"))) == 3


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"basis": "shared", "foreground": True}, "cannot share colours"),
        ({"kinds": ("pca",), "heads": True}, "--heads is about attention; add attention to --kinds"),
        ({"kinds": ("attention",), "basis": "shared"}, "--basis is about pca"),
        ({"kinds": ("attention",), "foreground": True}, "--foreground is about pca"),
        ({"kinds": ("pca",), "patch": "0.1,0.2"}, "--patch is about similarity"),
    ],
)
def test_options_without_effect_are_a_sentence(choices: dict, said: str):
    with pytest.raises(ConfigError, match=said):
        VisualizeOptions(**choices).check()


def test_pictures_of_one_kind_are_replaced_and_others_stay(tmp_path: Path):
    def made(kind: str, content: bytes) -> SavedPicture:
        return SavedPicture(kind=kind, title="t", caption="c", content=content)

    write_album(tmp_path, [made("pca", b"1"), made("attention", b"2"), made("attention", b"3")])
    write_album(tmp_path, [made("attention", b"4")])
    assert list(index(tmp_path)) == ["pca_0.png", "attention_0.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "attention_0.png",
        "pca_0.png",
        "pictures.json",
    ]
    assert (tmp_path / "attention_0.png").read_bytes() == b"4"


@pytest.mark.parametrize("content", ['{"a": 1}', '[{"title": 1}]', "[1]", "nonsense"])
def test_a_list_of_pictures_by_somebody_else_is_not_written_over(tmp_path: Path, content: str):
    (tmp_path / "pictures.json").write_text(content)
    with pytest.raises(ConfigError, match=r"pictures\.json"):
        run(tmp_path, NamedEncoder(vit_encoder(), "v"))
    assert (tmp_path / "pictures.json").read_text() == content


def test_every_patch_is_a_clean_square():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    with Image.open(
        io.BytesIO(
            draw(
                ["row"], [EncoderColumn("a"), EncoderColumn("b")], [[ImagePanel(pixels), ImagePanel(pixels)]]
            )
        )
    ) as image:
        drawn = np.asarray(image.convert("RGB"))
    left, top, p = 34 + SIDE + GAP, 35, SIDE // 32
    expected = pixels.repeat(p, 0).repeat(p, 1)
    np.testing.assert_array_equal(drawn[top : top + SIDE, left : left + SIDE], expected)


def test_long_names_lose_their_middle():
    assert shortened("short", 10) == "short"
    found = shortened("vit_base_patch16_224.one|vit_base_patch16_224.two", 20)
    assert len(found) == 20 and found.startswith("vit_base") and found.endswith("224.two") and "..." in found


def test_a_folder_is_looked_at_at_equal_distances_and_names_tell_pictures_apart(tmp_path: Path):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        for number in range(4):
            picture(number, (20, 20)).save(tmp_path / folder / f"{number}.png")
    assert list(read_photographs([tmp_path], 4)) == ["a/0.png", "a/2.png", "b/0.png", "b/2.png"]
    assert list(read_photographs([tmp_path / "a", tmp_path / "b" / "3.png"], 5)) == [
        "a/0.png", "a/1.png", "a/2.png", "a/3.png", "b/3.png",
    ]  # fmt: skip
    assert list(read_photographs([tmp_path / "a" / "1.png"] * 2, 4)) == ["1: 1.png", "2: 1.png"]
    assert list(read_photographs([], 4)) == ["china.jpg", "flower.jpg"]


def test_images_that_cannot_be_read_are_a_sentence(tmp_path: Path):
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadImage, match="no such file"):
        read_photographs([tmp_path / "none.jpg"], 4)
    with pytest.raises(BadImage, match="not an image"):
        read_photographs([tmp_path / "text.jpg"], 4)
    with pytest.raises(DataError, match="no image in this folder"):
        read_photographs([tmp_path / "empty"], 4)
    with pytest.raises(ConfigError, match="max_images must be at least 1, got 0"):
        read_photographs([], 0)


def test_the_command_draws_and_names_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    picture().save(tmp_path / "a.png")
    words = [VIT, CNN, "--images", str(tmp_path / "a.png"), "--image-size", "64", "--basis", "shared"]
    code = main(["visualize", *words, "--patch", "0.2,0.8", "--out", str(tmp_path / "o"), "--device", "cpu"])
    assert code == 0
    assert capsys.readouterr().out.split() == [
        str(tmp_path / "o" / f"{kind}_0.png") for kind in ("pca", "similarity", "attention")
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["efficientnet_lit0"], "did you mean efficientnet_lite0"),
        ([VIT, "no/such/run"], "no/such/run: no such run folder or file"),
        ([VIT, "--patch", "2,0"], "--patch 2,0 is no place in a picture"),
        ([VIT, "--images", "/no/such.jpg"], "/no/such.jpg: no such file"),
        ([CNN, "--image-size", "64", "--kinds", "attention"], "no encoder has attention to show"),
        ([VIT, "--image-size", "3"], "smaller than one patch of test_vit"),
        ([], "no encoder named"),
    ],
)
def test_mistakes_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
):
    code, error = attempt(capsys, *words, "--out", str(tmp_path / "o"))
    assert code == 2 and said in error and "Traceback" not in error


def test_a_run_is_drawn_into_its_own_folder_and_its_head_beside_its_teacher(
    tmp_path: Path, student_run: Path
):
    words = [CNN, str(student_run), f"{student_run}@test_convnext", "--image-size", "32", "--basis", "shared"]
    assert main(["visualize", *words, "--kinds", "pca", "--device", "cpu"]) == 0
    entry = index(student_run / "pictures")["pca_0.png"]
    assert entry["title"].endswith(f"test_convnext, {student_run.name}, {student_run.name}@test_convnext")


def test_a_head_that_does_not_exist_is_a_sentence(capsys: pytest.CaptureFixture[str], student_run: Path):
    code, error = attempt(capsys, f"{student_run}@test_convnet")
    assert code == 2 and "did you mean test_convnext" in error


@pytest.fixture(scope="module")
def student_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps of a small student."""
    root = tmp_path_factory.mktemp("student")
    (root / "images").mkdir()
    for number in range(16):
        picture(number, (40, 40)).save(root / "images" / f"{number}.png")
    words = ["distill", "debug", "--teachers", CNN, "--optim.epochs", "1", "--optim.warmup-epochs", "0"]
    folders = ["--data.root", str(root / "images"), "--out", str(root / "run")]
    with torch.random.fork_rng():
        code = main([*words, *folders, "--device", "cpu"])
    assert code == 0
    return root / "run"
