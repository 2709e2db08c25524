import io
import json
import os
import pickle
import struct
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unic.core.cache_dir import cache_dir
from unic.core.errors import DataError
from unic.data.decode import MAX_PIXELS, BadImage, read_image
from unic.data.folders import read_image_folder, read_paths, scan_folder
from unic.data.labeled_images import ImageList


def picture(width: int = 40, height: int = 30) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.uint8(np.stack([x * 6, y * 8, x + y], axis=-1)))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_header(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))


def exif_turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


# The first and the last of the 256 grey levels of 16 bits that have the same upper byte, for each upper byte.
RAMP = np.repeat(np.stack([np.arange(256) << 8, (np.arange(256) << 8) + 0xFF]).astype(np.uint16), 4, axis=0)
PALETTE = picture().quantize(16)
PALETTE.info["transparency"] = bytes(range(16))

READABLE = {
    "rgb.jpg": encoded(picture(), "JPEG", quality=95),
    "progressive.jpg": encoded(picture(), "JPEG", quality=95, progressive=True),
    "cmyk.jpg": encoded(picture().convert("CMYK"), "JPEG", quality=95),
    "gray.jpg": encoded(picture().convert("L"), "JPEG"),
    "exif turned.jpg": encoded(picture(), "JPEG", quality=95, exif=exif_turned()),
    "png named jpg.jpg": encoded(picture(), "PNG"),
    "palette transparent.png": encoded(PALETTE, "PNG", transparency=bytes(range(16))),
    "rgba.png": encoded(picture().convert("RGBA"), "PNG"),
    "la.png": encoded(picture().convert("LA"), "PNG"),
    "bilevel.png": encoded(picture().convert("1"), "PNG"),
    "webp.webp": encoded(picture(), "WEBP", lossless=True),
    "bmp.bmp": encoded(picture(), "BMP"),
    "ppm.ppm": encoded(picture(), "PPM"),
    "tiff.tif": encoded(picture(), "TIFF"),
    "animation.gif": encoded(picture(), "GIF", save_all=True, append_images=[Image.new("RGB", (40, 30))] * 3),
    "one pixel.png": encoded(picture(1, 1), "PNG"),
    "unicode 猫 🐈.png": encoded(picture(), "PNG"),
    "new\nline.png": encoded(picture(), "PNG"),
    os.fsdecode(b"not utf-8 \xff.png"): encoded(picture(), "PNG"),
}

_png, _jpeg = encoded(picture(), "PNG"), encoded(picture(), "JPEG")
_crc = bytearray(_png)
_crc[_png.index(b"IDAT") + 8] ^= 1
DAMAGED = {
    "empty.jpg": (b"", "not an image"),
    "text.jpg": (b"<html>404 Not Found</html>", "not an image"),
    "half.jpg": (_jpeg[:-50], "truncated"),
    "half.png": (_png[: len(_png) // 2], ""),
    "header only.jpg": (_jpeg[:30], ""),
    "crc.png": (bytes(_crc), ""),
    "no pixels.png": (png_header(0, 5) + chunk(b"IEND", b""), ""),
    "bomb.png": (png_header(20_000, 20_000) + chunk(b"IEND", b""), ""),
    "large.png": (png_header(9_000, 12_000) + chunk(b"IEND", b""), f"wanted 1 to {MAX_PIXELS} pixels"),
    "text bomb.png": (
        png_header(4, 4) + chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2**24))) + chunk(b"IEND", b""),
        "MAX_TEXT_CHUNK",
    ),
    "float.tif": (encoded(Image.new("F", (4, 4), 0.5), "TIFF"), "floating-point"),
    "int32.tif": (encoded(Image.new("I", (4, 4), 70_000), "TIFF"), "32-bit"),
    "eps.jpg": (encoded(picture(), "EPS"), "not an image"),
    "pdf.jpg": (encoded(picture(), "PDF"), "not an image"),
    "tga.jpg": (encoded(picture(), "TGA"), "not an image"),
}


@pytest.mark.parametrize("name", READABLE)
def test_a_readable_file_becomes_rgb_without_a_warning(name: str, tmp_path: Path):
    (tmp_path / name).write_bytes(READABLE[name])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = read_image(tmp_path / name)
    assert image.mode == "RGB"
    assert image.size == ((1, 1) if "one pixel" in name else (40, 30))
    if not any(word in name for word in ("gray", "la.png", "bilevel", "palette", "gif", "one pixel")):
        # 6 grey levels: JPEG at quality 95 and the way through CMYK
        np.testing.assert_allclose(np.asarray(image).astype(int), np.asarray(picture()).astype(int), atol=6)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_one_kind_of_error_that_names_it(name: str, tmp_path: Path):
    content, reason = DAMAGED[name]
    (tmp_path / name).write_bytes(content)
    started = time.perf_counter()
    with pytest.raises(BadImage) as caught:
        read_image(str(tmp_path / name))
    assert time.perf_counter() - started < 1
    assert caught.value.path == str(tmp_path / name)
    assert caught.value.reason and reason in caught.value.reason


@pytest.mark.parametrize("name", ["missing.png", "a\0b.png", "."])
def test_what_is_no_file_is_a_bad_image_too(name: str, tmp_path: Path):
    with pytest.raises(BadImage):
        read_image(f"{tmp_path}/{name}")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_flipped_bytes_raise_nothing_but_bad_images(tmp_path: Path):
    random = np.random.default_rng(0)
    outcomes = {True: 0, False: 0}
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF"):
        whole = encoded(picture(), kind)
        for _ in range(40):
            content = bytearray(whole)
            for place in random.integers(0, min(len(content), 200), size=3):
                content[place] = random.integers(256)
            (tmp_path / "fuzz").write_bytes(content)
            try:
                read_image(tmp_path / "fuzz")
                outcomes[True] += 1
            except BadImage:
                outcomes[False] += 1
    assert min(outcomes.values()) > 10


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_gray_keeps_its_256_upper_levels(kind: str, tmp_path: Path):
    Image.fromarray(RAMP).save(tmp_path / "ramp", kind)
    gray = np.asarray(read_image(tmp_path / "ramp"))[..., 0]
    np.testing.assert_array_equal(gray, np.arange(256)[None].repeat(8, axis=0))


def test_a_bad_image_survives_the_way_out_of_a_worker():
    copy = pickle.loads(pickle.dumps(BadImage("/a/b.jpg", "cut short")))
    assert (copy.path, copy.reason, str(copy)) == ("/a/b.jpg", "cut short", "/a/b.jpg: cut short")


def make_tree(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def relative(root: Path, paths: list[str]) -> list[str]:
    return [os.path.relpath(path, root) for path in paths]


def make_old(root: Path) -> None:
    """A folder that changed just now is never remembered (its next change could have the same time)."""
    for folder, _, _ in os.walk(root):
        os.utime(folder, ns=(10**18, 10**18))


def test_a_scan_is_sorted_and_leaves_out_what_is_hidden_or_no_image(tmp_path: Path):
    make_tree(
        tmp_path, "b/2.JPEG", "b/1.png", "a/c/x.webp", ".git/x.jpg", "a/._x.jpg", "a/notes.txt", "0.bmp"
    )
    assert relative(tmp_path, scan_folder(tmp_path)) == ["0.bmp", "a/c/x.webp", "b/1.png", "b/2.JPEG"]


def test_a_scan_follows_links_but_not_in_circles(tmp_path: Path):
    make_tree(tmp_path, "root/a/x.png", "outside/y.png")
    (tmp_path / "root/link").symlink_to(tmp_path / "outside")
    (tmp_path / "root/a/up").symlink_to(tmp_path / "root")
    (tmp_path / "root/gone.png").symlink_to(tmp_path / "nothing")
    assert relative(tmp_path / "root", scan_folder(tmp_path / "root")) == [
        "a/x.png",
        "gone.png",
        "link/y.png",
    ]


@pytest.mark.parametrize("old", [True, False])
def test_files_added_or_removed_deep_inside_are_seen_by_the_next_scan(old: bool, tmp_path: Path):
    make_tree(tmp_path, "a/b/c/1.png", "a/2.png")

    def scan() -> list[str]:
        return relative(tmp_path, scan_folder(tmp_path))

    if old:
        make_old(tmp_path)
    assert scan() == scan() == ["a/2.png", "a/b/c/1.png"]
    make_tree(tmp_path, "a/b/c/3.png")
    assert scan() == ["a/2.png", "a/b/c/1.png", "a/b/c/3.png"]
    if old:
        make_old(tmp_path / "a/b/c")
        scan()
    (tmp_path / "a/b/c/1.png").unlink()
    (tmp_path / "a/new").mkdir()
    make_tree(tmp_path, "a/new/4.png")
    assert scan() == ["a/2.png", "a/b/c/3.png", "a/new/4.png"]


def test_a_second_scan_lists_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make_tree(tmp_path, "a/b/1.png", "2.png")
    make_old(tmp_path)
    first = scan_folder(tmp_path)
    monkeypatch.setattr(os, "scandir", None)
    assert scan_folder(tmp_path) == first


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"root": 3}', '{"folders": {"/x": "y"}}'])
def test_a_damaged_cache_means_another_scan(content: str, tmp_path: Path, private_cache: Path):
    make_tree(tmp_path, "a/1.png")
    make_old(tmp_path)
    first = scan_folder(tmp_path)
    (file,) = (private_cache / "scans").iterdir()
    good = file.read_text()
    file.write_text(content)
    assert scan_folder(tmp_path) == first
    assert file.read_text() == good


def test_damaged_fields_of_the_cache_mean_another_scan(tmp_path: Path, private_cache: Path):
    make_tree(tmp_path, "a/1.png")
    make_old(tmp_path)
    first = scan_folder(tmp_path)
    (file,) = (private_cache / "scans").iterdir()
    for folders in (None, 3, {str(tmp_path): 5}, {str(tmp_path): ["x", []]}, {str(tmp_path): [1, 2, 3]}):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"folders": folders}))
        assert scan_folder(tmp_path) == first


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make_tree(tmp_path, "images/1.png", "file")
    make_old(tmp_path)
    monkeypatch.setenv("UNIC_CACHE", str(tmp_path / "file"))
    assert cache_dir() == tmp_path / "file"
    assert relative(tmp_path, scan_folder(tmp_path / "images")) == ["images/1.png"]


def test_a_list_names_paths_from_its_own_folder(tmp_path: Path):
    (tmp_path / "list.txt").write_bytes(b"# mine\r\n\na/1.png\r\n   \n/b/with space .png\n\xff.png")
    expected = [
        f"{tmp_path}/a/1.png",
        "/b/with space .png",
        os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"),
    ]
    assert read_paths(tmp_path / "list.txt") == expected


def test_sources_that_cannot_be_used_are_explained(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.txt").write_text("# nothing\n\n")
    (tmp_path / "binary.tar").write_bytes(b"\0\1\2")
    for name, words in (
        ("missing", "no such folder of images or text list"),
        ("folder", "no image in this folder"),
        ("empty.txt", "empty list"),
        ("binary.tar", "not a text file"),
    ):
        with pytest.raises(DataError, match=words) as caught:
            read_paths(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
    with pytest.raises(DataError, match="no such folder"):
        scan_folder(tmp_path / "missing")


def test_classes_are_numbered_by_name_and_may_have_subfolders(tmp_path: Path):
    make_tree(tmp_path, "train/cat/2.png", "train/ant/deep/1.png", "train/bee/.hidden.png", "train/cat/1.png")
    images = read_image_folder(tmp_path, "train")
    assert images.classes == ("ant", "bee", "cat")
    assert relative(tmp_path / "train", list(images.paths)) == ["ant/deep/1.png", "cat/1.png", "cat/2.png"]
    assert images.labels is not None
    assert images.labels.tolist() == [0, 2, 2]
    assert len(images) == 3


def test_a_wrong_layout_says_what_was_wanted_and_what_was_found(tmp_path: Path):
    make_tree(tmp_path, "a/training/x/1.png", "flat/train/1.png", "stray/train/1.png", "stray/train/x/2.png")
    (tmp_path / "hollow/train/x").mkdir(parents=True)
    for root, words in (
        ("missing", "no such folder"),
        ("a", "no folder 'train' here .wanted train/<class>/<image>; found training"),
        ("flat", "no folder of a class here .wanted .*; found 1.png"),
        ("hollow", "1 folders of classes and no image"),
        ("stray", "1 images outside the folders of classes .*1.png"),
    ):
        with pytest.raises(DataError, match=words):
            read_image_folder(tmp_path / root, "train")


def test_identity_follows_files_and_labels_but_not_the_place(folder_of: Callable[..., Path], tmp_path: Path):
    def identity(root: Path, labels: tuple[int, ...] = (0, 1)) -> str:
        return ImageList(tuple(scan_folder(root)), np.array(labels), ("a", "b"), "x", str(root)).identity()

    root = folder_of(2)
    before = identity(root)
    assert identity(root) == before
    assert identity(root, (1, 0)) != before
    moved = root.rename(tmp_path / "moved")
    assert identity(moved) == before
    os.utime(moved / "000.png", ns=(5, 5))
    assert identity(moved) != before
    (moved / "001.png").unlink()
    assert ImageList((*scan_folder(moved), f"{moved}/001.png")).identity() != before
