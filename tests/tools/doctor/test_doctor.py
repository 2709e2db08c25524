"""`unic teachers check NAME... --data DIR` from words to doctor.json."""

import json
from pathlib import Path

import pytest
from doctor_images import Colours, photographs, same_vector

from unic.cli import main
from unic.teachers import SCHEMES, Scheme

RESNET = "timm:resnet10t?pretrained=0&image_size=32"
VIT = "timm:vit_tiny_patch16_224?pretrained=0&image_size=32"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return photographs(tmp_path_factory.mktemp("photographs"), 110)


def check(*words: object) -> int:
    return main(["teachers", "check", *map(str, words), "--device", "cpu"])


def test_the_record_has_every_teacher_token_and_pair_and_finds_a_duplicate(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    again = f"{RESNET}&name=again"
    assert check(RESNET, again, VIT, "--data", folder, "--out", tmp_path / "new" / "out") == 0
    record = json.loads((tmp_path / "new" / "out" / "doctor.json").read_text())
    assert {"unic", "data", "images", "seconds", "teachers", "pairs", "warnings"} <= set(record)
    assert record["images"] == 110
    names = ["resnet10t", "again", "vit_tiny_patch16_224"]
    rows = [(row["name"], row["token"]) for row in record["teachers"]]
    assert rows == [(name, token) for name in names for token in ("cls", "patches")]
    wanted = (
        "norm", "effective_rank", "dead_share", "outlier_share", "images_per_second", "memory_mb", "expected_loss",
    )  # fmt: skip
    assert all(isinstance(row[key], float) for row in record["teachers"] for key in wanted)
    assert len(record["pairs"]) == 6
    duplicates = [each["teachers"] for each in record["warnings"] if each["kind"] == "duplicate"]
    assert duplicates == [["resnet10t", "again"]]
    printed = capsys.readouterr().out
    assert "resnet10t and again say almost the same" in printed.replace("\n", " ")
    assert "doctor.json" in printed
    assert [path.name for path in (tmp_path / "new" / "out").iterdir()] == ["doctor.json"]


def test_a_single_teacher_has_no_pairs_and_nothing_is_written_without_out(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert check(VIT, "--data", folder, "--max-images", 5) == 0
    printed = capsys.readouterr().out
    assert "5 images" in printed and "CKA CLS" not in printed
    assert not list(tmp_path.iterdir())


def test_a_single_image_is_enough_to_say_that_it_is_few_and_that_another_is_bad(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    (photographs(tmp_path / "two", 2) / "0001.png").write_bytes(b"no picture")
    assert check(RESNET, VIT, "--data", tmp_path / "two", "--out", tmp_path) == 0
    printed = capsys.readouterr().out.replace("\n", " ")
    assert "1 image is few" in printed and "1 of 2 images looked at cannot be read" in printed
    record = json.loads((tmp_path / "doctor.json").read_text())
    assert record["images"] == 1 and record["pairs"] == []
    assert record["unreadable"] == [str(tmp_path / "two" / "0001.png")]
    assert record["teachers"][0]["expected_loss"] is None


def test_constant_features_are_found_by_name(
    folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    def load(name: str, options: dict) -> Colours:
        return Colours(name=name, grid=2, spoil=lambda tokens, pixels: widened(same_vector(tokens, pixels)))

    def widened(tokens):
        return type(tokens)(tokens.cls.repeat(1, 3), tokens.patches.repeat(1, 1, 3))

    scheme = Scheme(load=load, options=frozenset(), example="colours:x", what="for this test")
    monkeypatch.setitem(SCHEMES._entries, "colours", scheme)
    assert check("colours:dull", "--data", folder) == 0
    printed = capsys.readouterr().out.replace("\n", " ")
    assert "The CLS tokens and patches of dull are the same for all images" in printed


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([VIT, "--data", "missing"], "missing: no such folder"),
        ([VIT, "--data", "empty"], "no image in this folder"),
        ([VIT, VIT, "--data", "empty"], "two teachers are called vit_tiny_patch16_224"),
        (["--data", "empty"], "which teachers?"),
        (["efficientnet_lit0", "--data", "empty"], "did you mean efficientnet_lite0"),
        ([VIT, "--out", "x"], "--out has no effect without --data"),
        ([VIT, "--max-images", "3"], "--max-images has no effect without --data"),
        ([VIT, "--data", "empty", "--images", "a.png"], "use one of them"),
        ([VIT, "--data", "some", "--max-images", "0"], "max_images must be at least 1"),
        ([VIT, "--data", "some", "--out", "file"], "file: no folder can be made there"),
    ],
)
def test_mistakes_are_one_sentence(
    words: list[str],
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    photographs(tmp_path / "some", 2)
    assert check(*words) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("unic: ")]
    assert sentence in line


def test_without_data_it_says_what_it_said_before(capsys: pytest.CaptureFixture):
    assert check(VIT) == 0
    printed = capsys.readouterr().out
    assert "content hash" in printed and "misfit" not in printed


def test_it_says_the_same_twice(folder: Path, tmp_path: Path):
    records = []
    for out in ("a", "b"):
        assert check(RESNET, VIT, "--data", folder, "--max-images", 50, "--out", tmp_path / out) == 0
        record = json.loads((tmp_path / out / "doctor.json").read_text())
        del record["seconds"]
        for row in record["teachers"]:
            del row["images_per_second"]
        records.append(record)
    assert records[0] == records[1]
