"""Reading other people's students: timm computes the same, the ladder is the sum of the paper, bad files say why."""

import collections
import json
import math
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import layouts
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor

from unic.core.dataclass_json import to_dict
from unic.core.errors import ConfigError, WeightsError
from unic.method.config import StatisticsConfig
from unic.method.types import Tokens
from unic.models.config import StudentConfig
from unic.models.dinov2_format import dinov2_to_timm, student_config
from unic.models.student import build_encoder, write_encoder
from unic.students.foreign_formats import read_published
from unic.students.load_encoder import load, read_student

PLAIN = StudentConfig(model=None, image_size=32, width=64, depth=2, heads=1, patch_size=16)


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def assert_same_as_timm(tokens: Tokens, model: VisionTransformer, images: Tensor) -> None:
    """To the bit: the same weights in the same network."""
    expected = layouts.timm_tokens(model, images / 255 if images.dtype == torch.uint8 else images)
    assert torch.equal(tokens.cls, expected.cls) and torch.equal(tokens.patches, expected.patches)


def in_teachers_scale(model: VisionTransformer, content: dict[str, Any], teacher: str, images: Tensor):
    """CLS and patches by the formula, in float64: sum over blocks of W2 gelu(W1 x + b1) + b2, times std, plus mean."""
    state = {key.removeprefix("module."): value.double() for key, value in content["model"].items()}
    wide = layouts.vit(width=model.embed_dim, depth=len(model.blocks)).double()
    wide.load_state_dict(model.state_dict())
    x = wide.norm_pre(wide._pos_embed(wide.patch_embed(layouts.normalised(images / 255).double())))
    sums: dict[str, Any] = {"cls": 0.0, "patch": 0.0}
    for number, block in enumerate(wide.blocks):
        x = block(x)
        for kind, tokens in (("cls", x[:, 0]), ("patch", x[:, 1:])):
            key = f"lp.heads.{teacher}.{kind}.{number}.layers"
            h = tokens @ state[f"{key}.0.weight"].T + state[f"{key}.0.bias"]
            h = h * (1 + torch.erf(h / math.sqrt(2))) / 2
            sums[kind] = sums[kind] + h @ state[f"{key}.2.weight"].T + state[f"{key}.2.bias"]
    found = content["teacher_ft_stats"][teacher]
    return [sums[k] * (found[k]["std"].double() + 1e-6) + found[k]["mean"].double() for k in ("cls", "patch")]


# The published files.


@pytest.mark.parametrize("prefix", ["module.", ""])
@pytest.mark.parametrize(
    ("width", "depth", "patch_size", "args"),
    [(64, 2, 16, {}), (128, 3, 14, {}), (48, 2, 16, {"arch": "vit_tiny"})],
)
def test_the_encoder_of_a_published_file_is_timms_to_the_bit(
    tmp_path: Path, images: Tensor, prefix: str, width: int, depth: int, patch_size: int, args: dict
):
    heads = 3 if args else width // 64
    model = layouts.vit(width, depth, heads=heads, patch_size=patch_size)
    path = saved(layouts.published(model, prefix=prefix, **args), tmp_path / "unic.pth")
    size = 2 * patch_size
    encoder = load(path)
    assert (encoder.name, encoder.image_size, encoder.patch_size) == ("unic", size, patch_size)
    assert not encoder.training and not any(p.requires_grad for p in encoder.parameters())
    assert_same_as_timm(encoder(images[..., :size, :size]), model, images[..., :size, :size])


def test_a_file_of_the_size_of_vit_tiny_is_the_timm_model_of_that_name(tmp_path: Path):
    model = layouts.randomised(timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=64))
    path = saved(layouts.published(model, arch="vit_tiny"), tmp_path / "unic.pth")
    student = read_published(path)
    assert to_dict(student.cfg) == to_dict(
        StudentConfig(model=None, image_size=64, width=192, depth=12, heads=3, patch_size=16, drop_path=0.2)
    )
    pixels = torch.rand(2, 3, 64, 64)
    assert_same_as_timm(student.encoder(pixels), model, pixels)


@pytest.mark.parametrize("teacher", layouts.TEACHERS)
def test_a_head_is_the_sum_of_the_paper_in_the_teachers_own_scale(
    unic_pth: Path, model: VisionTransformer, images: Tensor, teacher: str
):
    tokens = load(unic_pth, head=layouts.OURS[teacher])(images)
    cls, patches = in_teachers_scale(model, layouts.published(model), teacher, images)
    # Sums of some 100 products in float32, of values up to 10.
    torch.testing.assert_close(tokens.cls.double(), cls, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(tokens.patches.double(), patches, rtol=1e-4, atol=1e-4)


def test_what_a_published_file_says_is_kept(unic_pth: Path):
    student = read_student(unic_pth)
    assert student.ladder is not None
    assert set(student.ladder.widths) == set(layouts.OURS.values()) == set(student.standardizers)
    assert student.teachers == {name: name for name in layouts.OURS.values()}
    assert {s.cfg for s in student.standardizers.values()} == {
        StatisticsConfig(warmup_batches=0, std_floor=0.0)
    }
    assert (student.ladder_cfg.hidden, student.ladder_cfg.last_hidden) == (6, 10)
    assert student.ladder_cfg.blocks is None
    assert student.facts["epoch"] == 199
    args = student.facts["args"]
    assert args["lr"] == 3e-4 and args["world_size"] == 4 and args["seed"] == 22
    assert args["lp_args"] == "{'std': 0.02}"  # as it stands: such strings are never run
    assert not {"lr_schedule", "tnorm_ema_schedule", "best"} & args.keys()
    json.dumps(student.facts, allow_nan=False)


def test_a_head_that_is_not_there_is_answered_with_those_that_are(unic_pth: Path):
    with pytest.raises(ConfigError, match=r"did you mean metaclip_vith14"):
        load(unic_pth, head="metaclip_vitb14")
    with pytest.raises(ConfigError, match=r"known: dinov2_vitg14_reg, ibot_vitb16, metaclip_vith14"):
        load(unic_pth, head="zzz")


def test_an_encoder_published_without_its_ladder_is_read_and_has_no_heads(tmp_path: Path, images: Tensor):
    model = layouts.vit()
    content = layouts.published(model, {})
    del content["teacher_ft_stats"], content["args"], content["epoch"]
    path = saved(content, tmp_path / "encoder_only.pth")
    assert_same_as_timm(load(path)(images), model, images)
    with pytest.raises(ConfigError, match="without its ladder"):
        load(path, head="ibot_vitb16")


def test_teachers_that_unic_does_not_know_keep_their_names(tmp_path: Path):
    path = saved(layouts.published(layouts.vit(), {"my-own_teacher": 5}), tmp_path / "u.pth")
    assert set(read_published(path).standardizers) == {"my-own_teacher"}


def test_a_ladder_on_some_of_the_blocks_is_read(tmp_path: Path):
    content = layouts.published(layouts.vit(depth=3), {"a": 5})
    drop(content, ".1.layers.")
    student = read_published(saved(content, tmp_path / "u.pth"))
    assert student.ladder_cfg.blocks == (0, 2) and student.ladder_cfg.last_hidden == 10


def test_a_ladder_of_one_matrix_on_the_last_block_is_read(tmp_path: Path, images: Tensor):
    content = layouts.published(layouts.vit(), {"a": 64})
    drop(content, ".0.layers.")
    drop(content, ".layers.2.")
    for kind in ("cls", "patch"):
        put(content, f"lp.heads.a.{kind}.1.layers.0.weight", torch.eye(64))
        put(content, f"lp.heads.a.{kind}.1.layers.0.bias", torch.zeros(64))
    student = read_published(saved(content, tmp_path / "u.pth"))
    assert student.ladder is not None and student.ladder_cfg.projector == "linear"
    blocks = student.encoder.block_outputs(images)
    torch.testing.assert_close(student.ladder(blocks)["a"].patches, blocks[-1].patches)


def test_containers_that_training_scripts_use_are_read(tmp_path: Path, images: Tensor):
    model = layouts.vit()
    content = layouts.published(model)
    nested = collections.defaultdict(collections.OrderedDict)
    for name, kinds in content["teacher_ft_stats"].items():
        nested[name] = collections.OrderedDict(kinds)
    content["teacher_ft_stats"] = nested
    content["args"] = vars(content["args"])
    path = saved(collections.OrderedDict(content), tmp_path / "u.pth")
    assert_same_as_timm(load(path)(images), model, images)
    assert len(read_published(path).standardizers) == 3


# Published files that are not what they should be.


def drop(content: dict[str, Any], part: str) -> None:
    for key in [key for key in content["model"] if part in key]:
        del content["model"][key]


def put(content: dict[str, Any], key: str, value: Any) -> None:
    content["model"][f"module.{key}"] = value


def with_prenorm(content: dict[str, Any]) -> None:
    """A norm before the first matrix moves every index by one."""
    for key in [key for key in content["model"] if ".layers." in key]:
        tensor = content["model"].pop(key)
        content["model"][key.replace("layers.2", "layers.3").replace("layers.0", "layers.1")] = tensor
        content["model"][key.replace("layers.2", "layers.0")] = torch.ones(64)


def renamed_teacher(name: str) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        content["model"] = {k.replace("ibot_vitbase_16", name): v for k, v in content["model"].items()}
        content["teacher_ft_stats"][name] = content["teacher_ft_stats"].pop("ibot_vitbase_16")

    return change


BAD: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no statistics": (lambda c: c.pop("teacher_ft_stats"), "no statistics of its teachers"),
    "a teacher's statistics missing": (
        lambda c: c["teacher_ft_stats"].popitem(),
        "is about dino2_vitgiant_14, ibot_vitbase_16; expected the ladder's .*metaclip",
    ),
    "another teacher's statistics": (
        lambda c: c["teacher_ft_stats"].update(other=1),
        "is about .*other; expected",
    ),
    "statistics of another width": (
        lambda c: c["teacher_ft_stats"]["ibot_vitbase_16"]["cls"].update(mean=torch.ones(1, 9)),
        r"the mean of ibot_vitbase_16's cls features .* is \(1, 9\); expected 7 numbers",
    ),
    "statistics that are none": (
        lambda c: c["teacher_ft_stats"].update(ibot_vitbase_16=torch.ones(3)),
        "is missing; expected 7 numbers",
    ),
    "half the statistics": (
        lambda c: c["teacher_ft_stats"]["ibot_vitbase_16"]["patch"].pop("std"),
        "the std of ibot_vitbase_16's patch features .* is missing",
    ),
    "statistics not finite": (
        lambda c: c["teacher_ft_stats"]["ibot_vitbase_16"]["cls"]["std"].fill_(math.inf),
        "cls_std has infinite",
    ),
    "a norm in the ladder": (with_prenorm, "norms in it"),
    "a vector for a matrix": (
        lambda c: put(c, "lp.heads.ibot_vitbase_16.cls.0.layers.0.weight", torch.ones(6)),
        "norms in it",
    ),
    "a projector missing": (
        lambda c: drop(c, "ibot_vitbase_16.patch.1.layers.2.weight"),
        "1 missing: heads.ibot_vitb16.patch.1.layers.2.weight",
    ),
    "a token type missing": (lambda c: drop(c, "ibot_vitbase_16.patch"), "heads.ibot_vitb16.patch"),
    "a block too many": (
        lambda c: put(c, "lp.heads.ibot_vitbase_16.cls.7.layers.0.weight", torch.ones(6, 64)),
        r"ladder.blocks names \[7\]",
    ),
    "another ladder": (lambda c: put(c, "lp.scale", torch.ones(1)), "lp.scale is no part of a ladder"),
    "a teacher's name with a dot": (renamed_teacher("my.teacher"), "no dot in <teacher>"),
    "a teacher's name that torch uses": (renamed_teacher("keys"), "teacher named 'keys'"),
    "a teacher's name with a space": (renamed_teacher("a b"), "teacher named 'a b'"),
    "a teacher twice": (renamed_teacher("metaclip_vith14"), "a teacher twice"),
    "no position embedding": (lambda c: drop(c, "pos_embed"), "has no pos_embed"),
    "positions of no square": (
        lambda c: put(c, "encoder.pos_embed", torch.ones(1, 7, 64)),
        "7 positions; expected one for CLS and those of a square grid",
    ),
    "a weight missing": (
        lambda c: drop(c, "encoder.blocks.0.1.mlp.fc1.weight"),
        r"1 missing: blocks\.1\.mlp\.fc1\.weight",
    ),
    "a block missing": (lambda c: drop(c, "encoder.blocks.0.0."), r"missing: blocks\.0\."),
    "all blocks missing": (lambda c: drop(c, "encoder.blocks."), "student.depth must be at least 1"),
    "a block twice": (
        lambda c: put(c, "encoder.blocks.1.0.norm1.weight", torch.ones(64)),
        "a block is there twice",
    ),
    "a foreign part": (lambda c: put(c, "decoder.weight", torch.ones(1)), "decoder.weight beside"),
    "a weight not finite": (
        lambda c: put(c, "encoder.norm.weight", torch.full((64,), math.nan)),
        "norm.weight has infinite or undefined",
    ),
    "an unknown arch": (lambda c: setattr(c["args"], "arch", "vit_huge"), "arch 'vit_huge'"),
    "an arch of another width": (
        lambda c: setattr(c["args"], "arch", "vit_tiny"),
        "64 is not a multiple of student.heads 3",
    ),
    "an arch that is no name": (lambda c: setattr(c["args"], "arch", ["a"]), "arch"),
    "a depth's rate out of range": (lambda c: setattr(c["args"], "drop_path_rate", 2), "drop_path"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_published_file_that_is_not_as_published_is_a_sentence_with_its_name(tmp_path: Path, case: str):
    change, words = BAD[case]
    content = layouts.published(layouts.vit())
    change(content)
    with pytest.raises(WeightsError, match=words) as refused:
        read_published(saved(content, tmp_path / "u.pth"))
    assert "u.pth" in str(refused.value) and "\n" not in str(refused.value)


def test_a_width_that_leaves_the_number_of_heads_open_is_refused(tmp_path: Path):
    path = saved(layouts.published(layouts.vit(width=32, heads=2)), tmp_path / "u.pth")
    with pytest.raises(WeightsError, match="how many attention heads"):
        read_published(path)


# DINOv2's format.


@pytest.mark.parametrize("chunks", [0, 1, 2])
@pytest.mark.parametrize("wrapper", ["flat", "model", "teacher", "FSDP", "safetensors"])
def test_a_plain_backbone_in_dinov2s_format_is_timms_to_the_bit(
    tmp_path: Path, images: Tensor, chunks: int, wrapper: str
):
    model = layouts.vit(depth=4, patch_size=8, image_size=32)
    state = layouts.dinov2_names(model, chunks=chunks)
    head = {"dino_head.mlp.0.weight": torch.ones(2)}
    path = tmp_path / "backbone.pth"
    match wrapper:
        case "flat":
            torch.save(state, path)
        case "model":
            torch.save({"model": {f"module.{key}": tensor for key, tensor in state.items()}}, path)
        case "teacher":
            teacher = {**{f"backbone.{key}": tensor for key, tensor in state.items()}, **head}
            torch.save({"teacher": {f"module.{k}": t for k, t in teacher.items()}, "epoch": 3}, path)
        case "FSDP":
            student = {f"student.backbone.{key}": torch.zeros_like(t) for key, t in state.items()}
            teacher = {f"teacher.backbone.{key}": tensor for key, tensor in state.items()}
            torch.save({"model": {**student, **teacher, **head}, "iteration": 3}, path)
        case "safetensors":
            path = tmp_path / "backbone.safetensors"
            save_file(state, path)
    student = read_published(path)
    assert_same_as_timm(student.encoder(images), model, images)
    assert student.name == "backbone" and student.ladder is None
    assert to_dict(student.cfg) == to_dict(
        StudentConfig(model=None, image_size=32, width=64, depth=4, heads=1, patch_size=8)
    )


@pytest.mark.parametrize("name", ["vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2"])
def test_dinov2s_own_models_are_what_timm_makes_of_their_files(tmp_path: Path, name: str):
    state = layouts.dinov2_names(layouts.randomised(timm.create_model(name, num_classes=0, img_size=42)))
    path = saved(state, tmp_path / "dinov2_vits14_pretrain.pth")
    oracle: Any = timm.create_model(name, num_classes=0, img_size=42).eval()
    oracle.load_state_dict(checkpoint_filter_fn(dict(state), oracle))
    student = read_published(path)
    assert (student.cfg.model, student.cfg.image_size) == (name, 42)
    pixels = torch.rand(1, 3, 42, 42)
    assert_same_as_timm(student.encoder(pixels), oracle, pixels)


@pytest.mark.parametrize("size", ["small", "base", "large", "giant"])
@pytest.mark.parametrize("registers", ["", "_reg4"])
def test_each_of_dinov2s_models_is_known_by_its_shapes(size: str, registers: str):
    name = f"vit_{size}_patch14{registers}_dinov2"
    with torch.device("meta"):
        model: Any = timm.create_model(name, num_classes=0)
        state = layouts.dinov2_names(model, chunks=1)
    assert to_dict(student_config(state, {}, "file")) == to_dict(StudentConfig(model=name, image_size=518))
    own = {key: tensor.shape for key, tensor in model.state_dict().items()}
    assert {key: tensor.shape for key, tensor in dinov2_to_timm(state).items()} == own


@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize("gated", [False, True])
def test_names_become_those_that_timm_gives_them(registers: int, gated: bool):
    kind = {"reg_tokens": 4, "no_embed_class": True} if registers else {}
    model = layouts.vit(gated=gated, init_values=0.1, **kind)
    state = layouts.dinov2_names(model)
    expected = checkpoint_filter_fn(dict(state), model)
    found = dinov2_to_timm(layouts.dinov2_names(model, chunks=1))
    assert expected.keys() == found.keys() == model.state_dict().keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ({"init_values": 0.1}, "0 registers, layer-scale and an MLP"),
        ({"reg_tokens": 4, "no_embed_class": True}, "4 registers, no layer-scale"),
        ({"gated": True}, "a SwiGLU"),
    ],
)
def test_a_kind_of_vit_that_only_dinov2s_own_models_may_be_is_refused(tmp_path: Path, kind: dict, words: str):
    path = saved(layouts.dinov2_names(layouts.vit(**kind)), tmp_path / "b.pth")
    with pytest.raises(WeightsError, match=rf"b\.pth holds a ViT of width 64, depth 2 .*{words}"):
        read_published(path)


# Our own files.


def test_our_own_file_is_read_by_its_note_under_the_name_of_the_file(tmp_path: Path, images: Tensor):
    encoder = build_encoder(PLAIN, seed=1).eval()
    write_encoder(tmp_path / "mine.safetensors", PLAIN, encoder)
    student = read_published(tmp_path / "mine.safetensors")
    assert student.name == student.encoder.name == "mine" and student.cfg == PLAIN and not student.config
    assert torch.equal(student.encoder(images).cls, encoder(images).cls)


@pytest.mark.parametrize("note", [True, False])
def test_our_own_file_in_a_run_folder_has_the_name_of_the_run(tmp_path: Path, images: Tensor, note: bool):
    run = tmp_path / "my-run"
    run.mkdir()
    encoder = build_encoder(PLAIN, seed=1).eval()
    config = {"student": to_dict(PLAIN), "seed": 1, "teachers": ["a"]}
    (run / "config.json").write_text(json.dumps(config))
    path = run / "encoder.safetensors"
    if note:
        write_encoder(path, PLAIN, encoder)
    else:
        save_file(encoder.model.state_dict(), path)
    student = read_published(path)
    assert student.name == student.encoder.name == "my-run"
    assert student.cfg == PLAIN and student.config == config
    assert torch.equal(student.encoder(images).patches, encoder(images).patches)


def test_our_own_file_with_a_damaged_note_is_a_sentence(tmp_path: Path):
    state = build_encoder(PLAIN, seed=1).model.state_dict()
    for number, (note, words) in enumerate((("{", "note .* is damaged"), ('{"wide": 3}', "wide"))):
        save_file(state, tmp_path / f"{number}.safetensors", {"unic.student": note})
        with pytest.raises(WeightsError, match=rf"{number}\.safetensors.*{words}"):
            read_published(tmp_path / f"{number}.safetensors")


def test_a_file_of_ours_with_other_weights_is_a_sentence(tmp_path: Path):
    encoder = build_encoder(PLAIN, seed=1)
    save_file(
        layouts.vit(width=128).state_dict(),
        tmp_path / "e.safetensors",
        {"unic.student": json.dumps(to_dict(PLAIN))},
    )
    with pytest.raises(WeightsError, match="of another shape"):
        read_published(tmp_path / "e.safetensors")
    save_file(
        {f"encoder.model.{k}": t for k, t in encoder.model.state_dict().items()}, tmp_path / "m.safetensors"
    )
    with pytest.raises(WeightsError, match="give the folder of the run"):
        read_published(tmp_path / "m.safetensors")


# Anything else.


class Attack:
    """Would write a file when it is unpickled."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self):
        return (os.open, (str(self.canary), os.O_CREAT | os.O_WRONLY))


def test_a_malicious_file_is_refused_by_the_name_of_what_is_in_it_and_nothing_is_run(tmp_path: Path):
    canary = tmp_path / "canary"
    content = layouts.published(layouts.vit())
    for number, hiding in enumerate(("args", "epoch", "teacher_ft_stats", "model")):
        path = saved({**content, hiding: Attack(canary)}, tmp_path / f"{number}.pth")
        with pytest.raises(WeightsError, match=r"Python objects besides tensors \(posix\.open\)"):
            read_published(path)
    (tmp_path / "raw.pth").write_bytes(pickle.dumps({"model": Attack(canary)}, protocol=2))
    with pytest.raises(WeightsError, match=r"raw\.pth"):
        read_published(tmp_path / "raw.pth")
    assert not canary.exists()


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        {"model": {"a": 3}},
        {"model": None},
        torch.ones(3),
        {},
        {"model": {}},
        {"teacher": {}},
        {"teacher": {"backbone.mask_token": torch.ones(1)}},
        {"encoder.x": torch.ones(1)},
    ],
)
def test_a_file_of_something_else_is_a_sentence(tmp_path: Path, content: Any):
    with pytest.raises(WeightsError, match=r"u\.pth"):
        read_published(saved(content, tmp_path / "u.pth"))


def test_weights_of_a_timm_model_are_answered_with_how_to_name_them(tmp_path: Path):
    path = saved(layouts.vit().state_dict(), tmp_path / "u.pth")
    with pytest.raises(WeightsError, match=r"no student: found .* file:.*u\.pth\?model=<timm model>"):
        load(path)


def test_a_missing_file_and_a_folder_that_is_no_run_are_sentences(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        read_published(tmp_path / "nothing.pth")
    with pytest.raises(ConfigError, match="no run folder"):
        load(tmp_path)
