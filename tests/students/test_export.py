"""Exported students: the library they are for computes the same tokens, or nothing is left on the disk."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from layouts import normalised, timm_tokens
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unic.core.errors import ConfigError, DataError, WeightsError
from unic.method.config import StatisticsConfig
from unic.method.standardize import Standardizer
from unic.method.types import Tokens, Widths
from unic.models.config import LadderConfig, StudentConfig
from unic.models.positions import Resampling, fit_positions
from unic.models.student import build_encoder, build_student, read_encoder
from unic.students.export import EXPORTS, export
from unic.students.export.to_onnx import _HeadGraph
from unic.students.load_encoder import read_student
from unic.students.loaded_student import LoadedStudent

TEACHERS = {"one": Widths(5, 5), "two": Widths(7, 3)}
SMALL = LadderConfig(hidden=6, last_hidden=10)
DIMENSIONS = {"model": None, "width": 16, "depth": 2, "heads": 2, "patch_size": 8}
STUDENTS = {
    "by dimensions": StudentConfig(**DIMENSIONS, image_size=32),
    "with registers": StudentConfig(**DIMENSIONS, image_size=32, registers=3),
    "test_vit": StudentConfig(model="test_vit", image_size=32),
    "vit_tiny_patch16_224": StudentConfig(model="vit_tiny_patch16_224.augreg_in21k", image_size=32),
    "vit_small_patch14_dinov2": StudentConfig(model="vit_small_patch14_dinov2", image_size=28),
    "vit_small_patch14_reg4_dinov2": StudentConfig(model="vit_small_patch14_reg4_dinov2", image_size=28),
    "deit3_small_patch16_224": StudentConfig(model="deit3_small_patch16_224", image_size=32),
}
TOLERANCE = 1e-4  # of the export itself


@pytest.fixture(scope="module")
def student() -> Callable[[str], LoadedStudent]:
    """Students by name, made once: random weights everywhere, also where training starts with zeros or ones."""
    made: dict[str, LoadedStudent] = {}

    def get(name: str) -> LoadedStudent:
        if name not in made:
            made[name] = make(STUDENTS.get(name) or StudentConfig(model=name, image_size=32))
        return made[name]

    return get


def make(
    cfg: StudentConfig,
    ladder: LadderConfig = SMALL,
    statistics: StatisticsConfig = StatisticsConfig(),  # noqa: B008 (frozen)
) -> LoadedStudent:
    model = build_student(cfg, ladder, TEACHERS, seed=0).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    standardizers = {name: Standardizer(widths, statistics) for name, widths in TEACHERS.items()}
    for statistic in nn.ModuleDict(standardizers).buffers():
        statistic.copy_(torch.rand(statistic.shape, generator=generator) + 0.5)
    model.encoder.name = "little student"
    return LoadedStudent(
        name="little student",
        cfg=cfg,
        encoder=model.encoder,
        ladder=model.ladder,
        ladder_cfg=ladder,
        standardizers=standardizers,
        teachers={"one": "dino_vitb16", "two": "timm:test_vit"},
        source=Path("nowhere"),
    )


def pictures(num: int, height: int, width: int | None = None) -> Tensor:
    """Floats in [0, 1], as smooth as photographs are."""
    coarse = torch.rand(num, 3, 5, 4, generator=torch.Generator().manual_seed(2))
    return nn.functional.interpolate(coarse, (height, width or height), mode="bilinear")


SLOW = {
    "vit_small_patch14_dinov2",
    "deit3_small_patch16_224",
}  # 22 M parameters; one such is enough every time


def same(got: Tokens, expected: Tokens) -> None:
    torch.testing.assert_close(got.cls, expected.cls, rtol=0.0, atol=TOLERANCE)
    torch.testing.assert_close(got.patches, expected.patches, rtol=0.0, atol=TOLERANCE)
    assert expected.cls.std() > 0.01 and expected.patches.std() > 0.01, (
        "features that are all alike show nothing"
    )


# Each library's own way in, written here once more, without any code of ours.


def with_timm(folder: Path, images: Tensor) -> Tokens:
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    return timm_tokens(model, images)


def with_hf(folder: Path, images: Tensor) -> Tokens:
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokens = model(normalised(images)).last_hidden_state
    num_patches = (images.shape[-1] // model.config.patch_size) ** 2
    return Tokens(tokens[:, 0], tokens[:, -num_patches:])


def with_hub(folder: Path, images: Tensor) -> Tokens:
    encoder = torch.hub.load(str(folder), "encoder", source="local")
    features = encoder.forward_features(normalised(images))
    torch.testing.assert_close(encoder(normalised(images)), features["x_norm_clstoken"])
    return Tokens(features["x_norm_clstoken"], features["x_norm_patchtokens"])


def with_onnx(folder: Path, images: Tensor) -> Tokens:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    cls, patches = session.run(None, {"images": images.numpy()})
    return Tokens(torch.from_numpy(cls), torch.from_numpy(patches))


def with_dinov2(folder: Path, images: Tensor) -> Tokens:
    """timm reads the file for its own DINOv2 architectures; a student by dimensions is one with other numbers."""
    (file,) = folder.glob("*.pth")
    state = torch.load(file, weights_only=True)
    registers = state["register_tokens"].shape[1] if "register_tokens" in state else 0
    width, _, patch_size, _ = state["patch_embed.proj.weight"].shape
    model = timm.create_model(
        "vit_small_patch14_reg4_dinov2" if registers else "vit_small_patch14_dinov2",
        num_classes=0,
        img_size=images.shape[-1],
        patch_size=patch_size,
        embed_dim=width,
        depth=1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks.")),
        num_heads={16: 2, 64: 2, 192: 3, 384: 6}[width],
        mlp_ratio=len(state["blocks.0.mlp.fc1.bias"]) / width,
        reg_tokens=registers,
        init_values=1.0 if "blocks.0.ls1.gamma" in state else None,
    ).eval()
    if "blocks.0.ls1.gamma" not in state:  # the architecture insists on layer-scale
        for block in model.blocks:
            block.ls1 = block.ls2 = nn.Identity()
    model.load_state_dict(timm.models.vision_transformer.checkpoint_filter_fn(state, model))
    return timm_tokens(model, images)


def with_safetensors(folder: Path, images: Tensor) -> Tokens:
    """From the note in the header."""
    with safe_open(folder / "encoder.safetensors", "pt") as file:
        note = json.loads(file.metadata()["unic.student"])
    if note["model"]:
        model = timm.create_model(
            note["model"].split(".")[0], img_size=note["image_size"], num_classes=0, global_pool="token"
        )
    else:
        model = timm.models.VisionTransformer(
            img_size=note["image_size"],
            patch_size=note["patch_size"],
            embed_dim=note["width"],
            depth=note["depth"],
            num_heads=note["heads"],
            reg_tokens=note["registers"] or 0,
            num_classes=0,
        )
    model.load_state_dict(load_file(folder / "encoder.safetensors"))
    return timm_tokens(model.eval(), images)


LIBRARIES = {
    "timm": with_timm,
    "hf": with_hf,
    "hub": with_hub,
    "onnx": with_onnx,
    "dinov2": with_dinov2,
    "safetensors": with_safetensors,
}
QUICK = [name for name in LIBRARIES if name != "onnx"]


def needs(*formats: str) -> None:
    """Skips the test where a package of one of these is missing."""
    for to in formats:
        for package in {"hf": ["transformers"], "onnx": ["onnxruntime", "onnxscript"]}.get(to, []):
            pytest.importorskip(package)


def test_every_format_is_tested_here():
    assert set(EXPORTS) == set(LIBRARIES)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in STUDENTS]
)
@pytest.mark.parametrize("to", QUICK)
def test_the_library_computes_the_students_tokens(to: str, name: str, student, tmp_path: Path):
    needs(to)
    encoder = student(name).encoder
    parity = export(student(name), to, tmp_path / "out")
    with torch.inference_mode():
        images = pictures(3, encoder.image_size)
        same(LIBRARIES[to](tmp_path / "out", images), encoder(images))
    written = json.loads((tmp_path / "out/parity.json").read_text())
    assert max(written["cls"]["max"], written["patches"]["max"]) <= TOLERANCE and len(written["images"]) == 2
    assert written["library"] == parity.library and written["version"] and written["precision"] == "fp32"
    assert (tmp_path / "out/README.md").exists()


@pytest.fixture(scope="module")
def graph(student, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The student with registers as ONNX: an export takes two seconds."""
    needs("onnx")
    folder = tmp_path_factory.mktemp("onnx") / "out"
    export(student("with registers"), "onnx", folder)
    return folder


def check_sizes(folder: Path, student: LoadedStudent) -> None:
    p, size = student.encoder.patch_size, student.encoder.image_size
    with torch.inference_mode():
        for batch, side in ((1, size), (2, size), (5, size), (1, p), (2, size + p), (5, 3 * size)):
            images = pictures(batch, side)
            same(with_onnx(folder, images), at_size(student, side)(images))


def test_onnx_gives_the_tokens_for_any_batch_and_any_image_size(graph: Path, student):
    check_sizes(graph, student("with registers"))
    assert {path.name for path in graph.iterdir()} == {
        "model.onnx",
        "parity.json",
        "README.md",
        "manifest.json",
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", [*STUDENTS, "vit_xsmall_patch16_clip_224"])
def test_onnx_takes_every_kind_of_student(name: str, student, tmp_path: Path):
    needs("onnx")
    export(student(name), "onnx", tmp_path / "out")
    check_sizes(tmp_path / "out", student(name))


def at_size(student: LoadedStudent, side: int):
    """The student built for another image size, its positions resampled as when it is loaded for that size."""
    encoder = build_encoder(replace(student.cfg, image_size=side), seed=0)
    state = fit_positions(student.encoder.model.state_dict(), encoder.model, Resampling())
    encoder.model.load_state_dict(state)
    return encoder.eval()


def test_onnx_gives_patches_row_by_row_for_an_image_that_is_not_square(graph: Path, student):
    """The oracle is timm's own resampling for images of any size."""
    options = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "reg_tokens": 3}
    model = timm.models.VisionTransformer(**options, num_classes=0, dynamic_img_size=True)
    model.load_state_dict(student("with registers").encoder.model.state_dict())
    images = pictures(2, 48, 24)
    with torch.inference_mode():
        same(with_onnx(graph, images), timm_tokens(model.eval(), images))


@pytest.mark.parametrize("name", ["with registers", pytest.param("test_vit", marks=pytest.mark.slow)])
def test_onnx_with_a_head_gives_features_in_the_teachers_space(name: str, student, tmp_path: Path):
    needs("onnx")
    export(student(name), "onnx", tmp_path / "out", head="two")
    head = student(name).head("two")
    images = pictures(5, head.image_size)
    with torch.inference_mode():
        expected = head(images)
        same(with_onnx(tmp_path / "out", images), expected)
    assert expected.cls.shape == (5, 7) and expected.patches.shape[2] == 3


@pytest.mark.parametrize("kind", ["ema", "none"])
@pytest.mark.parametrize("ladder", [LadderConfig(projector="linear"), LadderConfig(blocks=(0,), hidden=4)])
def test_the_graph_of_a_head_is_the_head_for_every_ladder(ladder: LadderConfig, kind: str):
    """Before the export, so without its cost."""
    saved = make(STUDENTS["by dimensions"], ladder, StatisticsConfig(kind=kind))
    images = pictures(2, 32)
    with torch.inference_mode():
        same(Tokens(*_HeadGraph(saved.head("one"))(images)), saved.head("one")(images))


@pytest.mark.slow
def test_a_large_onnx_model_has_its_weights_in_a_file_beside_it(student, tmp_path: Path, monkeypatch):
    needs("onnx")
    monkeypatch.setattr("unic.students.export.to_onnx._LARGEST", 1000)
    export(student("by dimensions"), "onnx", tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"model.onnx", "model.onnx.data", "parity.json", "README.md", "manifest.json"}
    images = pictures(1, 32)
    with torch.inference_mode():
        same(with_onnx(tmp_path / "out", images), student("by dimensions").encoder(images))


def test_the_hub_folder_holds_its_files_alone_needs_no_unic_and_takes_other_image_sizes(
    student, tmp_path: Path
):
    saved = student("with registers")
    export(saved, "hub", tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"hubconf.py", "encoder.safetensors", "parity.json", "README.md", "manifest.json"}
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in (tmp_path / "out").iterdir())
    images = pictures(2, 48)
    with torch.inference_mode():
        expected = at_size(saved, 48)(images)
    save_file({"images": normalised(images)}, tmp_path / "images.safetensors")
    code = """
import sys, torch
sys.modules["unic"] = None  # importing it is an error from here on
from safetensors.torch import load_file, save_file
encoder = torch.hub.load("out", "encoder", source="local")
assert not encoder.training
with torch.no_grad():
    features = encoder.forward_features(load_file("images.safetensors")["images"])
    fresh = torch.hub.load("out", "encoder", source="local", pretrained=False)
    assert not torch.equal(fresh.vit.cls_token, encoder.vit.cls_token)
save_file({k: v.contiguous() for k, v in features.items()}, "features.safetensors")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    features = load_file(tmp_path / "features.safetensors")
    same(Tokens(features["x_norm_clstoken"], features["x_norm_patchtokens"]), expected)


def test_heads_go_beside_the_encoder_and_come_back(student, tmp_path: Path):
    saved = student("by dimensions")
    images = pictures(2, 32)
    for head, teachers in ((None, {"one", "two"}), ("two", {"two"})):
        out = tmp_path / str(head)
        export(saved, "safetensors", out, head=head)
        encoder = read_encoder(out / "encoder.safetensors")
        assert encoder is not None
        back = read_student(out / "encoder.safetensors")
        assert back.name == out.name and back.ladder is not None
        assert set(back.standardizers) == set(back.teachers) == set(back.ladder.widths) == teachers
        with torch.inference_mode():
            expected, got = saved.head("two")(images), back.head("two")(images)
        assert torch.equal(expected.cls, got.cls) and torch.equal(expected.patches, got.patches)


def test_transformers_prepares_images_as_the_student_was_trained(student, tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    export(student("with registers"), "hf", tmp_path / "out")
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "out")
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    got = processor(images=Image.fromarray(pixels), return_tensors="pt")["pixel_values"]
    expected = normalised(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255)
    torch.testing.assert_close(got, expected, rtol=0.0, atol=1e-5)
    larger = processor(images=Image.new("RGB", (50, 40)), return_tensors="pt")["pixel_values"]
    assert larger.shape == (1, 3, 32, 32)
    kind = json.loads((tmp_path / "out/config.json").read_text())["architectures"]
    assert kind == ["Dinov2WithRegistersModel"]


def test_timm_prepares_images_as_unic_does(student, tmp_path: Path):
    """The short side to the image size, then the square at the centre."""
    from unic.data.crop import evaluation_view

    export(student("by dimensions"), "timm", tmp_path / "out")
    model = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    coarse = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((96, 64), Image.Resampling.BICUBIC)
    expected = normalised(evaluation_view(image, 32)[None].float() / 255)[0]
    torch.testing.assert_close(transform(image), expected, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "refused", "why"),
    [
        ("deit_tiny_distilled_patch16_224", ("hf", "dinov2", "onnx"), "class is not"),
        ("vit_tiny_r_s16_p8_224", ("hf", "dinov2", "onnx"), "not one convolution"),
        ("vit_xsmall_patch16_clip_224", ("hf", "dinov2"), "normalises before the blocks"),
    ],
)
def test_an_architecture_a_format_cannot_hold_is_refused_and_timm_takes_it(
    name: str, refused: tuple[str, ...], why: str, student, tmp_path: Path
):
    for to in refused:
        needs(to)
        with pytest.raises(ConfigError, match=f"{why}.*use --to timm"):
            export(student(name), to, tmp_path / "out")
    assert not list(tmp_path.iterdir())
    export(student(name), "timm", tmp_path / "out")
    images = pictures(2, 32)
    with torch.inference_mode():
        same(with_timm(tmp_path / "out", images), student(name).encoder(images))


@pytest.mark.parametrize("kind", ["queries", "activation", "MLP", "norms", "blocks"])
def test_a_vit_that_only_looks_plain_is_refused(kind: str, tmp_path: Path):
    saved = make(STUDENTS["by dimensions"])
    options = {
        "queries": {"qk_norm": True},
        "activation": {"act_layer": "quick_gelu"},
        "MLP": {"mlp_layer": timm.layers.SwiGLUPacked},
        "norms": {},
        "blocks": {"block_fn": timm.models.vision_transformer.ParallelThingsBlock},
    }[kind]
    saved.encoder.model = timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=0, **options
    )
    if kind == "norms":
        saved.encoder.model.norm.eps = 1e-3
    for to in ("hf", "dinov2"):
        needs(to)
        with pytest.raises(ConfigError, match="does not fit"):
            export(saved, to, tmp_path / "out")


FILES = {
    "timm": "model.safetensors",
    "hf": "model.safetensors",
    "hub": "encoder.safetensors",
    "safetensors": "encoder.safetensors",
}


@pytest.mark.parametrize("to", FILES)
@pytest.mark.parametrize("value", [5.0, torch.nan])
def test_files_that_give_other_features_are_not_kept(
    to: str, value: float, student, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    needs(to)
    damage(to, lambda weight: value, monkeypatch)
    with pytest.raises(WeightsError, match="differ by up to" if value == 5 else "infinite or undefined"):
        export(student("by dimensions"), to, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def damage(to: str, change: Callable[[float], float], monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on the format writes one weight that is another."""
    form = EXPORTS[to]

    def write(saved: LoadedStudent, folder: Path, head: str | None) -> None:
        form.write(saved, folder, head)
        file = folder / FILES[to]
        tensors = load_file(file)
        with safe_open(file, "pt") as opened:
            note = opened.metadata()
        key = next(
            key for key in tensors if key.endswith("fc1.weight") or key.endswith("intermediate.dense.weight")
        )
        tensors[key][0, 0] = change(tensors[key][0, 0].item())
        save_file(tensors, file, note)

    monkeypatch.setitem(EXPORTS._entries, to, replace(form, write=write))


def test_the_tolerance_decides(student, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    damage("timm", lambda weight: weight + 1e-5, monkeypatch)
    with pytest.raises(WeightsError, match="more than the tolerance of 1e-12"):
        export(student("by dimensions"), "timm", tmp_path / "out", tolerance=1e-12)
    assert not list(tmp_path.iterdir())
    parity = export(student("by dimensions"), "timm", tmp_path / "out")
    assert 1e-12 < parity.patches.max < 1e-4 and 0 < parity.patches.mean < parity.patches.max
    with pytest.raises(ConfigError, match="above 0"):
        export(student("by dimensions"), "timm", tmp_path / "other", tolerance=0.0)


def test_own_photographs_are_compared_too(student, tmp_path: Path):
    Image.new("RGB", (40, 50), (200, 30, 90)).save(tmp_path / "mine.png")
    parity = export(student("by dimensions"), "timm", tmp_path / "out", images=[tmp_path / "mine.png"])
    assert parity.images == ("china.jpg (scikit-learn)", "flower.jpg (scikit-learn)", "mine.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"broken\.png"):
        export(student("by dimensions"), "timm", tmp_path / "other", images=[tmp_path / "broken.png"])
    assert not (tmp_path / "other").exists()


def test_a_folder_with_files_is_left_alone_and_an_empty_one_is_used(student, tmp_path: Path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for taken in ("full", "file"):
        with pytest.raises(ConfigError, match="exists already"):
            export(student("by dimensions"), "timm", tmp_path / taken)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["notes.txt"]
    (tmp_path / "empty").mkdir()
    export(student("by dimensions"), "timm", tmp_path / "empty")
    assert (tmp_path / "empty/model.safetensors").exists()


def test_a_head_goes_only_where_it_can(student, tmp_path: Path):
    for to in ("timm", "hf", "hub", "dinov2"):
        with pytest.raises(ConfigError, match="formats that can: onnx, safetensors"):
            export(student("by dimensions"), to, tmp_path / "out", head="one")
    with pytest.raises(ConfigError, match="did you mean one"):
        export(student("by dimensions"), "safetensors", tmp_path / "out", head="on")
    with pytest.raises(ConfigError, match="did you mean onnx"):
        export(student("by dimensions"), "onx", tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("to", "package", "extra"), [("hf", "transformers", "hf"), ("onnx", "onnxruntime", "onnx")]
)
def test_a_missing_package_is_named_with_the_way_to_install_it(
    to: str, package: str, extra: str, student, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"pip install 'unic\[{extra}\]'"):
        export(student("by dimensions"), to, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_exporting_leaves_the_generator_of_random_numbers_and_the_student_alone(student, tmp_path: Path):
    saved = student("with registers")
    state, before = torch.get_rng_state(), saved.encoder.content_hash()
    for to in ("timm", "hub", "dinov2", "safetensors"):
        export(saved, to, tmp_path / to)
    assert torch.equal(state, torch.get_rng_state())
    assert saved.encoder.content_hash() == before
