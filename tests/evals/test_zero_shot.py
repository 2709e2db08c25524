"""Zero-shot classification: open_clip's own classifier and towers are the oracle."""

import copy
import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import tyro
from PIL import Image
from torch import nn
from torch.testing import assert_close

from unic.core.errors import ConfigError, DataError, WeightsError
from unic.core.results import Result
from unic.data.datasets import DATASETS, DatasetSpec, Targets
from unic.data.datasets.wordnet_ids import wnids
from unic.data.folders import read_image_folder
from unic.data.labeled_images import ImageList
from unic.evals.evaluate import evaluate
from unic.evals.prompts import class_names
from unic.evals.protocols.zero_shot import ZeroShotConfig
from unic.evals.registry import EVALUATIONS, EvalOptions, options_type
from unic.evals.zero_shot import choose_teacher, class_embeddings, zero_shot_scores
from unic.method.config import StatisticsConfig
from unic.method.standardize import Standardizer
from unic.method.types import Widths
from unic.models.config import LadderConfig, StudentConfig
from unic.models.ladder import Ladder
from unic.models.student import build_encoder
from unic.students.loaded_student import LoadedStudent
from unic.teachers import TEACHERS, TeacherSpec
from unic.teachers.load import load_teacher
from unic.teachers.text_tower import TextTower, has_texts, load_text_tower

open_clip = pytest.importorskip("open_clip")

ARCH = "zero-shot-vit"
CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 32, "head_width": 16, "layers": 2},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
NAMES = ("apple", "barn_owl", "cat", "dog", "espresso_maker", "fire truck", "goose", "hammer")
WORDS = ("apple", "barn owl", "cat", "dog", "espresso maker", "fire truck", "goose", "hammer")
EACH = 4
CPU = torch.device("cpu")
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@pytest.fixture(autouse=True, scope="module")
def small_architecture(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("open_clip")
    (folder / f"{ARCH}.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(folder)


@pytest.fixture(autouse=True)
def forget_additions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("UNIC_CACHE", str(tmp_path / "unic-cache"))
    for registry in (DATASETS, TEACHERS):
        list(registry)
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))


def write_model(path: Path, seed: int = 2):
    """open_clip's model with random weights, and the file that holds them."""
    torch.manual_seed(seed)
    model = open_clip.create_model(ARCH).eval().requires_grad_(False)
    for key, parameter in model.named_parameters():
        # What images, or texts, have in common is small; else one class would be nearest to all of them.
        if key.endswith(("bias", "class_embedding", "positional_embedding")):
            nn.init.normal_(parameter, std=0.02)
        elif key != "logit_scale":
            nn.init.normal_(parameter, std=0.3)
    nn.init.normal_(model.visual.conv1.weight, std=1.0)
    torch.save({"state_dict": model.state_dict()}, path)
    return model


@pytest.fixture
def model(tmp_path: Path):
    return write_model(tmp_path / "clip.pt")


@pytest.fixture
def reference(model, tmp_path: Path) -> str:
    return f"open_clip:{ARCH}/{tmp_path}/clip.pt"


def write_images(folder: Path, names=NAMES) -> Path:
    """folder/test with noise of many colours and sizes of spots; there are no training images."""
    rng = np.random.default_rng(0)
    for name in names:
        (folder / "test" / name).mkdir(parents=True)
        for i in range(EACH):
            spots = rng.integers(0, 256, (2 ** rng.integers(1, 5),) * 2 + (3,), dtype=np.uint8)
            pixels = np.repeat(np.repeat(spots, 16 // len(spots), 0), 16 // len(spots), 1)
            Image.fromarray(pixels).save(folder / "test" / name / f"{i}.png")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_images(tmp_path / "things")


def pixels_of(images: ImageList) -> torch.Tensor:
    array = np.stack([np.asarray(Image.open(path)) for path in images.paths])
    return torch.from_numpy(array).permute(0, 3, 1, 2)


def evaluated(encoder, root: Path, dataset="image_folder", cache=None, **settings) -> dict[str, Result]:
    options = options_type()(workers=0, zero_shot=ZeroShotConfig(**settings), allow_count_mismatch=True)
    results = evaluate(encoder, dataset, root, ["zero-shot"], options, cache=cache, device=CPU)
    return {result.metric: result for result in results}


def oracle_texts(model, words=WORDS) -> torch.Tensor:
    return open_clip.build_zero_shot_classifier(
        model, open_clip.get_tokenizer(ARCH), words, open_clip.OPENAI_IMAGENET_TEMPLATES
    )  # (E, K)


def oracle_order(model, images: ImageList, words=WORDS) -> torch.Tensor:
    x = (pixels_of(images) / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    with torch.no_grad():
        logits = model.encode_image(x, normalize=True) @ oracle_texts(model, words)
    return logits.argsort(dim=1, descending=True)


def share(hits: torch.Tensor) -> float:
    return 100 * float(hits.double().mean())


def test_class_embeddings_are_open_clips(model, reference):
    tower = load_text_tower(reference)
    found = class_embeddings(tower, WORDS, reference=reference, cache=None)
    assert_close(found.T, oracle_texts(model), rtol=0, atol=1e-5)
    assert_close(found.norm(dim=1), torch.ones(len(WORDS)))


def test_a_teacher_predicts_what_open_clip_does(model, reference, root):
    results = evaluated(load_teacher(reference), root)
    images = read_image_folder(root, "test")
    order, labels = oracle_order(model, images), torch.from_numpy(images.labels)
    assert len(order[:, 0].unique()) > 3  # else the comparison would say little
    top1 = order[:, 0] == labels
    assert results["top1"].value == pytest.approx(share(top1))
    assert results["top5"].value == pytest.approx(share((order[:, :5] == labels[:, None]).any(1)))
    assert results["mean_per_class"].value == pytest.approx(share(top1))  # as many images of each class
    assert list(results) == ["top1", "top5", "mean_per_class"]


def test_results_say_whose_they_are_and_survive_json(reference, root):
    encoder = load_teacher(reference)
    result = evaluated(encoder, root)["top1"]
    assert (result.model, result.evaluation, result.unit) == (encoder.name, "zero-shot", "%")
    assert result.protocol == "zero-shot-1 names=classes" and result.seed is None
    assert result.model_hash == encoder.content_hash()
    assert Result.from_json(result.to_json()) == result


def test_it_is_registered_and_reads_no_training_images():
    evaluation = EVALUATIONS["zero-shot"]
    assert evaluation.description and "\n" not in evaluation.description and not evaluation.uses_train


def test_its_settings_are_options_of_the_command_line():
    words = ["--zero-shot.teacher", "metaclip_vith14", "--zero-shot.names", "names.txt"]
    settings = tyro.cli(options_type(), args=words).zero_shot
    assert settings == ZeroShotConfig(teacher="metaclip_vith14", names=Path("names.txt"))


def student_of(references: Mapping[str, str], widths: Mapping[str, Widths], tmp_path: Path) -> LoadedStudent:
    """A small student with random weights; its teachers' statistics are far from 0 and 1, some below the floor."""
    torch.manual_seed(1)
    cfg = StudentConfig(model=None, image_size=16, width=64, depth=2, heads=2, patch_size=8)
    encoder = build_encoder(cfg, seed=0).eval().requires_grad_(False)
    encoder.name = "student"
    ladder_cfg = LadderConfig(hidden=8, last_hidden=16)
    ladder = Ladder(widths, dim=64, num_blocks=2, cfg=ladder_cfg).eval().requires_grad_(False)
    for parameter in ladder.parameters():
        nn.init.normal_(parameter, std=0.5)
    standardizers = {name: Standardizer(widths[name], StatisticsConfig(std_floor=0.5)) for name in references}
    for standardizer in standardizers.values():
        standardizer.cls_mean.normal_(0.0, 2.0)
        standardizer.cls_std.uniform_(0.1, 4.0)
    student = LoadedStudent(
        name="student", cfg=cfg, encoder=encoder, ladder=ladder, ladder_cfg=ladder_cfg,
        standardizers=standardizers, teachers=references, source=tmp_path,
    )  # fmt: skip
    encoder.spaces = {ref: lambda _, name=name: student.head(name) for name, ref in references.items()}
    return student


def test_a_student_is_brought_back_into_the_teachers_scale_and_projected(model, reference, root, tmp_path):
    student = student_of({"clip": reference}, {"clip": Widths(32, 32)}, tmp_path)
    images = read_image_folder(root, "test")
    exact = copy.deepcopy(student.encoder).double()
    blocks = exact.blocks(exact.prepare(pixels_of(images).double() / 255))
    standardised = copy.deepcopy(student.ladder).double()(blocks)["clip"].cls
    statistics = student.standardizers["clip"]
    std, mean = statistics.cls_std.double(), statistics.cls_mean.double()
    floor = 0.5 * std.median()
    assert (std < floor).any()
    cls = standardised * (torch.maximum(std, floor) + 1e-6) + mean
    projected = cls @ model.visual.proj.double()
    cosines = projected / projected.norm(dim=1, keepdim=True) @ oracle_texts(model).double()

    tower = load_text_tower(reference)
    texts = class_embeddings(tower, WORDS, reference=reference, cache=None)
    got = zero_shot_scores(student.head("clip")(pixels_of(images)).cls, texts, tower)
    scale = float(model.logit_scale.exp())
    assert_close(got.double(), scale * cosines, rtol=0, atol=1e-4 * scale)

    order, labels = cosines.argsort(dim=1, descending=True), torch.from_numpy(images.labels)
    assert len(order[:, 0].unique()) > 1
    results = evaluated(student.encoder, root)
    assert results["top1"].value == pytest.approx(share(order[:, 0] == labels))
    assert results["top5"].value == pytest.approx(share((order[:, :5] == labels[:, None]).any(1)))
    assert {result.model for result in results.values()} == {"student"}
    assert results["top1"].model_hash == student.head("clip").content_hash() != student.encoder.content_hash()


def test_of_two_heads_with_texts_one_is_chosen_and_named(reference, root, tmp_path):
    write_model(tmp_path / "other.pt", seed=5)
    other = f"open_clip:{ARCH}/{tmp_path}/other.pt?name=other"
    student = student_of(
        {"clip": f"{reference}?name=clip", "other": other, "dino": "dino_vitb16"},
        {"clip": Widths(32, 32), "other": Widths(32, 32), "dino": Widths(5, 5)},
        tmp_path,
    )
    with pytest.raises(ConfigError, match=r"several ways to texts.*--zero-shot.teacher.*clip\.pt.*other\.pt"):
        evaluated(student.encoder, root)
    by_name = evaluated(student.encoder, root, teacher="other")["top1"]
    by_reference = evaluated(student.encoder, root, teacher=other)["top1"]
    assert dataclasses.replace(by_name, seconds=0.0) == dataclasses.replace(by_reference, seconds=0.0)
    assert by_name.model == "student@other"
    assert evaluated(student.encoder, root, teacher="clip")["top1"].model == "student@clip"


def test_a_head_of_another_width_than_its_teacher_is_refused(reference, root, tmp_path):
    student = student_of({"clip": reference}, {"clip": Widths(20, 32)}, tmp_path)
    with pytest.raises(WeightsError, match=r"gives 20 features, but .* projects 32"):
        evaluated(student.encoder, root)


def test_only_the_classes_that_count_are_ranked(model, reference, root):
    scored = (1, 3, 4, 6)

    def targets(root: Path, images: ImageList) -> Targets:
        return Targets(scored, tuple((1, 3) if label % 2 else (4,) for label in images.labels.tolist()))

    DATASETS.add(
        "some-classes",
        DatasetSpec(
            name="some-classes", read=read_image_folder, layout="", num_classes=None, targets=targets
        ),
    )
    results = evaluated(load_teacher(reference), root, dataset="some-classes")
    images = read_image_folder(root, "test")
    order = oracle_order(model, images)
    right = torch.zeros(len(images), len(NAMES))
    for row, label in enumerate(images.labels.tolist()):
        right[row, [1, 3] if label % 2 else [4]] = 1.0
    first = torch.tensor([next(k for k in row.tolist() if k in scored) for row in order])
    everything = share(right.gather(1, order[:, :1]))
    assert results["top1"].value == pytest.approx(share(right.gather(1, first[:, None])))
    assert results["top5"].value == 100.0  # four classes are scored
    assert results["top1_all_classes"].value == pytest.approx(everything)
    assert "mean_per_class" not in results  # several answers for one image


def test_images_of_two_classes_of_one_name_are_of_the_first(reference):
    tower = load_text_tower(reference)
    names = ("missile", *(f"thing {i}" for i in range(60)), "missile")
    texts = class_embeddings(tower, names, reference=reference, cache=None)
    features = torch.randn(500, 32, generator=torch.Generator().manual_seed(0))
    scores = zero_shot_scores(features, texts, tower)
    assert torch.equal(texts[0], texts[-1]) and torch.equal(scores[:, 0], scores[:, -1])


def test_imagenet_and_its_relatives_have_the_published_names():
    sets = [name for name in DATASETS if name == "in1k" or DATASETS[name].train_set == "in1k"]
    assert {"in1k", "imagenet_r", "objectnet", "imagenetv2"} <= set(sets)
    for name in sets:
        names, origin = class_names(name, wnids(), None)
        assert names == tuple(open_clip.IMAGENET_CLASSNAMES) and origin == ""
    names = dict(zip(wnids(), names, strict=True))
    assert (names["n01440764"], names["n02012849"]) == ("tench", "crane bird")


@pytest.mark.slow
def test_imagenet_is_asked_for_in_80000_sentences(model, reference, tmp_path):
    """All of in1k's protocol on a few images of ImageNet-A, of which 200 classes count."""
    scored = DATASETS["imagenet_a"].targets(tmp_path, ImageList((), np.array([], dtype=np.int64))).scored
    write_images(tmp_path, names=[wnids()[label] for label in scored[:40]])
    results = evaluated(load_teacher(reference), tmp_path / "test", dataset="imagenet_a")
    images = DATASETS["imagenet_a"].read(tmp_path / "test", "test")
    order = oracle_order(model, images, open_clip.IMAGENET_CLASSNAMES)
    among = torch.stack([row[torch.isin(row, torch.tensor(scored))][:5] for row in order])
    labels = torch.from_numpy(images.labels)[:, None]
    assert results["top1"].protocol == "zero-shot-1"
    assert results["top1"].value == pytest.approx(share((among[:, :1] == labels).any(1)))
    assert results["top5"].value == pytest.approx(share((among == labels).any(1)))
    assert results["top1_all_classes"].value == pytest.approx(share(order[:, :1] == labels))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("barn_owl", "barn owl"),
        ("/a/apartment_building/outdoor", "apartment building outdoor"),
        ("HerbaceousVegetation", "Herbaceous Vegetation"),
        ("Boeing 707-320", "Boeing 707-320"),
        ("__Golden__retriever", "Golden retriever"),
    ],
)
def test_names_of_folders_become_words(name: str, words: str):
    assert class_names("image_folder", [name], None) == ((words,), "names=classes")


@pytest.mark.parametrize("names", [("cat", "0"), ("n01440764", "n01443537"), ("12_3", "4.5")])
def test_names_that_are_no_words_are_refused(names):
    with pytest.raises(ConfigError, match=r"no words for names.*--zero-shot.names") as error:
        class_names("image_folder", names, None)
    assert ("--dataset in1k" in str(error.value)) == (names[0][0] == "n")


def test_names_can_come_from_a_file(model, reference, root, tmp_path):
    (tmp_path / "names.txt").write_text("\n".join(reversed(WORDS)) + "\n")
    result = evaluated(load_teacher(reference), root, names=tmp_path / "names.txt")["top1"]
    images = read_image_folder(root, "test")
    order = oracle_order(model, images, WORDS[::-1])
    assert result.value == pytest.approx(share(order[:, 0] == torch.from_numpy(images.labels)))
    origin = result.protocol.removeprefix("zero-shot-1 names=")
    assert len(origin) == 12 and int(origin, 16) >= 0
    (tmp_path / "names.txt").write_text("\n".join(WORDS))
    assert class_names("image_folder", NAMES, tmp_path / "names.txt") == (WORDS, class_names_origin(tmp_path))
    assert class_names_origin(tmp_path) != f"names={origin}"


def class_names_origin(folder: Path) -> str:
    import hashlib

    return f"names={hashlib.sha256((folder / 'names.txt').read_bytes()).hexdigest()[:12]}"


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"a\nb\n", r"2 lines for the 8 classes of image_folder; wanted one name a line.*\(apple, barn_owl"),
        (b"a\nb\n\nc\nd\ne\nf\ng\n", "line 3 is empty"),
        (b"\xff\xfe\x00", "UTF-8"),
    ],
)
def test_a_file_of_names_that_does_not_fit_is_explained(content: bytes, error: str, tmp_path):
    (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(DataError, match=error):
        class_names("image_folder", NAMES, tmp_path / "names.txt")


def test_a_file_of_names_for_objectnet_names_imagenets_classes(tmp_path):
    (tmp_path / "names.txt").write_text("chair\n" * 113)
    with pytest.raises(DataError, match="113 lines for the 1000 classes of in1k"):
        class_names("objectnet", ["chair"] * 113, tmp_path / "names.txt")
    with pytest.raises(FileNotFoundError, match="no such file; wanted one name a line"):
        class_names("objectnet", ["chair"] * 113, tmp_path / "nowhere.txt")


def published(name: str, text_tower: str | None) -> None:
    spec = TeacherSpec(
        name=name,
        model="test_vit",
        weights=lambda: Path("none"),
        text_tower=text_tower,
        licence="",
        source="",
    )
    TEACHERS.add(name, spec)


def test_which_teachers_have_texts_is_known_without_loading_them():
    published("with_texts", "ViT-B-32")
    published("without_texts", None)
    assert has_texts("metaclip_vith14") and has_texts("with_texts?image_size=64")
    assert has_texts("open_clip:ViT-B-32/laion2b?layer=-2")
    for reference in ("without_texts", "timm:resnet18", "file:/x/clip.pt", "hf:openai/clip", "gone_since"):
        assert not has_texts(reference)


def test_the_only_teacher_with_texts_is_chosen():
    assert choose_teacher(["dino_vitb16", "metaclip_vith14?image_size=336"], None, "s") == (
        "metaclip_vith14?image_size=336"
    )
    assert choose_teacher(["metaclip_vith14?image_size=336"], "metaclip_vith14", "s") == (
        "metaclip_vith14?image_size=336"
    )


@pytest.mark.parametrize(
    ("spaces", "wanted", "error"),
    [
        ([], None, "enc has no way to texts.*metaclip_vith14.*neither a space of texts nor heads"),
        ([], "metaclip_vith14", "enc has no way to texts"),
        (["dino_vitb16", "hf:openai/clip"], None, "it answers in, dino_vitb16, hf:openai/clip, have no texts"),
        (["file:/x/clip.pt"], "clip", "under such a name; .*file:/x/clip.pt"),
        (["metaclip_vith14"], "metaclip", "did you mean metaclip_vith14.*--zero-shot.teacher"),
        (["metaclip_vith14", "dino_vitb16"], "dino_vitb16", "unknown teacher with texts 'dino_vitb16'"),
        (["metaclip_vith14", "open_clip:ViT-B-32/x"], None, "choose one.*metaclip_vith14, open_clip:ViT-B-32/x"),
        (["metaclip_vith14?layer=-2&cls=pooled"], None, "with cls and layer its CLS is not the one"),
    ],
)  # fmt: skip
def test_an_encoder_without_a_clear_way_to_texts_is_told_what_to_do(spaces, wanted, error):
    with pytest.raises(ConfigError, match=error):
        choose_teacher(spaces, wanted, "enc")


def test_an_encoder_of_any_kind_without_texts_is_refused_before_it_is_called(encoder, root):
    with pytest.raises(ConfigError, match="mean-colour has no way to texts"):
        evaluate(encoder, "image_folder", root, ["zero-shot"], EvalOptions(workers=0), cache=None, device=CPU)
    assert encoder.calls == 0


def test_without_open_clip_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "open_clip", None)
    with pytest.raises(ImportError, match=r"zero-shot needs open_clip: pip install 'unic\[clip\]'"):
        class_names("in1k", wnids(), None)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts each call of the tower encoded."""
    calls, encode = [], TextTower.encode

    def counted(self, texts):
        calls.append(len(texts))
        return encode(self, texts)

    monkeypatch.setattr(TextTower, "encode", counted)
    return calls


def test_texts_are_encoded_once_for_the_same_names_and_weights(reference, root, tmp_path, encoded):
    encoder, cache = load_teacher(reference), tmp_path / "cache"
    first = evaluated(encoder, root, cache=cache)["top1"]
    assert sum(encoded) == 80 * len(NAMES)
    again = evaluated(encoder, root, cache=cache)["top1"]
    assert sum(encoded) == 80 * len(NAMES)
    assert dataclasses.replace(again, seconds=0.0) == dataclasses.replace(first, seconds=0.0)


def test_without_a_cache_nothing_is_kept(reference, tmp_path, encoded):
    tower = load_text_tower(reference)
    for _ in range(2):
        class_embeddings(tower, ("cat", "dog"), reference=reference, cache=None)
    assert sum(encoded) == 2 * 2 * 80


@pytest.mark.parametrize("change", ["names", "order", "weights", "activation"])
def test_other_names_or_weights_are_encoded_anew(change, reference, tmp_path, encoded):
    names, cache = ["cat", "dog"], tmp_path / "cache"
    first = class_embeddings(load_text_tower(reference), names, reference=reference, cache=cache)
    done = sum(encoded)
    if change == "names":
        names = ["cat", "fox"]
    elif change == "order":
        names = ["dog", "cat"]
    elif change == "weights":
        write_model(tmp_path / "clip.pt", seed=5)
    else:
        (tmp_path / "quick.json").write_text(json.dumps({**CONFIG, "quick_gelu": True}))
        open_clip.add_model_config(tmp_path / "quick.json")
        reference = reference.replace(ARCH, "quick")
    second = class_embeddings(load_text_tower(reference), names, reference=reference, cache=cache)
    assert sum(encoded) == 2 * done
    assert not torch.equal(first, second)


@pytest.mark.parametrize("harm", ["flipped", "missing", "empty"])
def test_damaged_texts_are_encoded_anew(harm, reference, tmp_path, encoded, caplog):
    tower, cache = load_text_tower(reference), tmp_path / "cache"
    expected = class_embeddings(tower, ("cat", "dog"), reference=reference, cache=cache)
    (file,) = (cache / "texts").glob("*/*.safetensors")
    content = bytearray(file.read_bytes())
    content[-3] ^= 4
    file.unlink()
    if harm != "missing":
        file.write_bytes(content if harm == "flipped" else b"")
    with caplog.at_level(logging.WARNING):
        found = class_embeddings(tower, ("cat", "dog"), reference=reference, cache=cache)
    assert torch.equal(found, expected) and sum(encoded) == 2 * 2 * 80
    assert "removed and computed again" in caplog.text
    assert torch.equal(class_embeddings(tower, ("cat", "dog"), reference=reference, cache=cache), expected)
    assert sum(encoded) == 2 * 2 * 80


def test_texts_that_cannot_be_kept_are_used(reference, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file where a folder should be")
    with caplog.at_level(logging.WARNING):
        class_embeddings(load_text_tower(reference), ("cat",), reference=reference, cache=tmp_path / "cache")
    assert "not kept for next time" in caplog.text


def test_long_work_is_heard_of_now_and_then(reference, monkeypatch, caplog):
    monkeypatch.setattr("unic.core.progress.SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level(logging.INFO):
        class_embeddings(load_text_tower(reference), WORDS, reference=reference, cache=None)
    assert "240/640 texts" in caplog.text and "s left" in caplog.text and "640 texts in" in caplog.text
