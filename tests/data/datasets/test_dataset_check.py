from pathlib import Path

import miniatures
import pytest
from PIL import Image

from unic.cli import main
from unic.core.errors import DataError
from unic.data.check_dataset import check_dataset
from unic.data.datasets import DATASETS, Roots
from unic.data.decode import BadImage


@pytest.fixture
def dtd(tmp_path: Path) -> Path:
    """Textures that can be decoded, in a folder of data sets."""
    root = miniatures.dtd(tmp_path / "dtd")
    for path in (root / "images").rglob("*.jpg"):
        Image.new("RGB", (8, 8)).save(path)
    return root


def check(root: Path, **options) -> list:
    return check_dataset("dtd", Roots(root), allow_count_mismatch=True, **options)


def test_what_is_there_is_counted(dtd: Path):
    trainval, test = check(dtd, samples=3)
    assert (trainval.split, trainval.images, trainval.present, trainval.decoded) == ("trainval", 4, 2, 3)
    assert (test.split, test.images, test.classes, test.fewest, test.most) == ("test", 2, 2, 1, 1)
    assert test.identity == DATASETS["dtd"].read(dtd, "test").identity()
    assert check(dtd.parent, samples=3) == [trainval, test]  # found below a folder of data sets


def test_a_data_set_is_looked_for_by_its_name_then_taken_as_it_is(tmp_path: Path):
    (tmp_path / "cog").mkdir()
    (tmp_path / "in1k").mkdir()
    assert Roots(tmp_path).find("cog_l4") == tmp_path / "cog"
    assert Roots(tmp_path).find("imagenet_real") == tmp_path / "in1k"
    assert Roots(tmp_path).find("dtd") == tmp_path


def test_wrong_counts_are_said_with_the_expected_layout(dtd: Path):
    with pytest.raises(
        DataError, match=r"(?s)dtd, trainval: 4 images in .* expected 3760.*\nexpected layout of dtd: "
    ):
        check_dataset("dtd", Roots(dtd))


def test_an_image_in_both_parts_is_found(dtd: Path):
    with (dtd / "labels/test1.txt").open("a") as file:
        file.write("woven/woven_0.jpg\n")
    with pytest.raises(DataError, match=r"woven_0.jpg is in trainval and in test"):
        check(dtd)


def test_an_image_listed_twice_is_found(dtd: Path):
    with (dtd / "labels/test1.txt").open("a") as file:
        file.write("woven/woven_2.jpg\n")
    with pytest.raises(DataError, match=r"woven_2.jpg is twice in test"):
        check(dtd)


def test_a_file_that_is_no_image_is_found(dtd: Path):
    (dtd / "images/woven/woven_2.jpg").write_text("not an image")
    with pytest.raises(DataError, match=r"woven_2.jpg: not an image") as error:
        check(dtd)
    assert isinstance(error.value.__cause__, BadImage)
    assert check(dtd, samples=0)[1].decoded == 0


def test_missing_images_and_classes_without_images_are_found(dtd: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(DATASETS._entries, "dtd", _with_counts("dtd", {"trainval": 4, "test": 2}, 2))
    assert len(check_dataset("dtd", Roots(dtd))) == 2
    (dtd / "images/woven/woven_0.jpg").unlink()
    with pytest.raises(DataError, match=r"dtd, trainval: 1 of 4 images are not there, first .*woven_0.jpg"):
        check_dataset("dtd", Roots(dtd))
    for file in ("train1.txt", "val1.txt"):
        (dtd / "labels" / file).write_text(
            "banded/banded_2.jpg\n" if "train" in file else "banded/banded_0.jpg\n"
        )
    monkeypatch.setitem(DATASETS._entries, "dtd", _with_counts("dtd", {"trainval": 2, "test": 2}, 2))
    with pytest.raises(DataError, match="dtd, trainval: 1 classes have no image, the first is 'woven'"):
        check_dataset("dtd", Roots(dtd))


def _with_counts(name: str, counts: dict[str, int], num_classes: int):
    import dataclasses

    return dataclasses.replace(DATASETS[name], counts=counts, num_classes=num_classes)


def test_the_sample_is_the_same_every_time(dtd: Path):
    (dtd / "images/banded/banded_1.jpg").write_text("damaged")
    found = []
    for _ in range(3):
        try:
            found.append(check(dtd, samples=1)[1].decoded)
        except DataError as error:
            found.append(str(error))
    assert len(set(found)) == 1


def test_the_command_line_prints_what_it_found(dtd: Path, capsys: pytest.CaptureFixture[str]):
    words = ["datasets", "check", "dtd", "--data-root", str(dtd.parent)]
    assert main([*words, "--allow-count-mismatch", "--samples", "2"]) == 0
    printed = capsys.readouterr().out
    assert "dtd trainval: 4 images" in printed and "2 of 2 classes, 2 to 2 images each; 2 decoded" in printed
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "--allow-count-mismatch" in error and "expected layout of dtd: images/<class>/<image>.jpg" in error


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["chekc"], "did you mean check"),
        (["list", "dtd"], "takes no more words"),
        (["check", "dtdd", "--data-root", "."], "did you mean dtd"),
        (["check", "dtd", "--data-root", "/nowhere"], "/nowhere: no such folder"),
        (["check", "dtd", "--data-root", ".", "--samples", "-1"], "-1 samples: expected 0 or more"),
    ],
)
def test_mistakes_at_the_command_line_are_explained(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["datasets", *words]) == 2
    assert sentence in capsys.readouterr().err


def test_the_list_names_every_set(capsys: pytest.CaptureFixture[str]):
    assert main(["datasets", "list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in DATASETS)
