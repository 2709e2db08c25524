"""The command line as a user meets it: the main path on real images, and one sentence for every mistake."""

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from inputs import assert_tokens, normalised, random_images
from safetensors.torch import save_file
from torch._inductor.exc import InductorError

import unic
from unic.cli import main
from unic.cli.main import VERBS, module_of
from unic.data.datasets.digits import write_digits

TEACHER = "timm:resnet10t?pretrained=0&image_size=32"


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 training and 5 test images of each digit."""
    root = tmp_path_factory.mktemp("data") / "digits"
    write_digits(root)
    for split, num in (("train", 20), ("test", 5)):
        for folder in (root / split).iterdir():
            for path in sorted(folder.iterdir())[num:]:
                path.unlink()
    return root


@pytest.fixture(scope="module")
def run(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the debug recipe: 10 steps."""
    out = tmp_path_factory.mktemp("runs") / "first"
    words = distill_words(digits, out, "--optim.epochs", "0.4", "--optim.warmup-epochs", "0.1")
    assert main([*words, "--device", "cpu"]) == 0
    return out


def distill_words(digits: Path, out: Path, *more: str) -> list[str]:
    """The command that carries out the debug recipe on the digits."""
    return ["distill", "debug", "--data.root", str(digits / "train"), "--out", str(out), *more]


SHORT = ("--optim.epochs", "0.1", "--optim.warmup-epochs", "0")


def attempt(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Exit code and what was said on stderr."""
    try:
        code = main(list(words))
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    return code, " ".join(capsys.readouterr().err.split())


def test_a_run_leaves_metrics_checkpoint_encoder_and_environment(run: Path):
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records] == list(range(1, 11))
    names = {"loss", "lr", "rate", "grad_norm", "images_per_second", "kept/resnet10t", "loss/resnet10t/cls"}
    assert names <= set(records[-1])
    assert (run / "checkpoints" / "step-00000010" / "manifest.json").exists()
    packages = json.loads((run / "environment.json").read_text())["packages"]
    assert packages["torch"] == torch.__version__.split("+")[0]
    assert list((run / "tensorboard").iterdir())


def test_the_released_encoder_loads_in_plain_timm_and_agrees_with_unic_load(run: Path):
    encoder = unic.load(run)
    model = timm.models.vision_transformer.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=0
    ).eval()
    timm.models.load_checkpoint(model, str(run / "encoder.safetensors"))
    x = random_images(32)
    with torch.no_grad():
        expected = model.forward_features(normalised(x))
    assert_tokens(encoder(x), expected[:, 0], expected[:, 1:], rtol=1e-5, atol=1e-5)


def test_a_finished_run_is_left_alone_and_its_config_repeats_it(run: Path, tmp_path: Path):
    again = tmp_path / "again"
    assert main(["distill", str(run / "config.json"), "--out", str(again)]) == 0
    files = [folder / "checkpoints" / "step-00000010" / "model.safetensors" for folder in (run, again)]
    assert files[0].read_bytes() == files[1].read_bytes()
    before = (again / "metrics.jsonl").read_bytes()
    assert main(["distill", str(run / "config.json"), "--out", str(again)]) == 0
    assert (again / "metrics.jsonl").read_bytes() == before


def test_encoders_of_every_kind_are_compared(run: Path, digits: Path, tmp_path: Path, capsys):
    out = tmp_path / "all.jsonl"
    words = ["evaluate", TEACHER, str(run), "--untrained", "--dataset", "digits", "--data-root", str(digits)]
    assert main([*words, "--knn.ks", "5", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "resnet10t" in shown and "first untrained" in shown
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert {r["model"] for r in records} == {"resnet10t", "first", "first untrained"}
    assert all(0 <= r["value"] <= 100 for r in records)
    own = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    assert {r["model"] for r in own} == {"first", "first untrained"}


@pytest.mark.parametrize(
    "words", [["teachers", "list"], ["datasets", "list"], ["recipes", "list"], [], ["--version"]]
)
def test_lists_and_help(words: list[str], capsys):
    assert main(words) == 0
    assert capsys.readouterr().out.strip()


def test_the_help_shows_the_first_line_of_each_commands_module(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    for verb in VERBS:
        assert (importlib.import_module(module_of(verb)).__doc__ or "").splitlines()[0] in shown


def test_every_module_of_the_command_line_is_a_command_or_shared_by_them():
    folder = Path(unic.__file__).parent / "cli"
    shared = {"__init__", "main", "common"}
    assert {path.stem for path in folder.glob("*.py")} - shared == {
        module_of(verb).rpartition(".")[2] for verb in VERBS
    }


WITHOUT_TORCH = [
    ["--help"],
    *([verb, "--help"] for verb in VERBS),
    *(["teachers", action, "--help"] for action in ("list", "fetch", "check")),
    *(["datasets", action, "--help"] for action in ("list", "check")),
    ["recipes", "list", "--help"],
    ["distill", "debug", "--help"],
    ["recipes", "list"],
    ["teachers", "list"],
    ["datasets", "list"],
]


@pytest.mark.parametrize("words", WITHOUT_TORCH, ids=" ".join)
def test_help_and_lists_answer_at_once_because_they_do_not_import_torch(words: list[str], tmp_path: Path):
    code = """
import sys
from unic.cli import main
try:
    status = main(sys.argv[1:])
except SystemExit as stop:
    status = stop.code or 0
slow = sorted({"torch", "torchvision", "timm", "sklearn", "transformers", "matplotlib"} & sys.modules.keys())
sys.exit(f"imported {slow}" if slow else status)
"""
    result = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.strip()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["distil"], "did you mean distill"),
        (["distill"], "which recipe?"),
        (["distill", "dbug"], "did you mean debug"),
        (["distill", "nothing.json"], "no such file"),
        (["distill", "debug"], "name a folder of images"),
        (["distill", "debug", "--data.root", "/nowhere"], "/nowhere"),
        (["distill", "debug", "--optim.lrr", "1"], "--optim.lr"),
        (["distill", "debug", "--optim.lr", "fast"], "could not convert string to float"),
        (["distill", "debug", "--loss.drop-prob", "1.5"], "[0, 1)"),
        (["distill", "debug", "--student.patch-size", "7"], "nearest: 28 or 35"),
        (["distill", "debug", "--student.image-size", "64"], "smaller than student.image_size"),
        (["distill", "debug", "--device", "abacus"], "abacus"),
        (["distill", "debug", "--optim.epochs", "inf"], "optim.epochs: expected a finite number"),
        (
            ["distill", "debug", "--statistics.std-floor", "nan"],
            "statistics.std_floor: expected a finite number",
        ),
        (["evaluate", "efficientnet_lite0", "typo", "--data-root", "."], "unknown teacher 'typo'"),
        (["evaluate", "--data-root", "/nowhere"], "no encoder to evaluate"),
        (["evaluate", "efficientnet_lite0"], "data-root"),
        (["evaluate", "efficientnet_lit0", "--data-root", "."], "did you mean efficientnet_lite0"),
        (["evaluate", "runs/none", "--data-root", "."], "no such run folder"),
        (["evaluate", "efficientnet_lite0", "--evals", "knnn", "--data-root", "."], "did you mean knn"),
        (["evaluate", TEACHER, "--dataset", "digit", "--data-root", "."], "did you mean digits"),
        (["teachers", "lst"], "did you mean list"),
        (["--plugin", "nothing.py", "teachers", "list"], "no such file"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_two(
    words: list[str], expected: str, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    code, said = attempt(capsys, *words)
    assert code == 2
    assert expected in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["--teachers", "efficientnet_lit0"], "did you mean efficientnet_lite0"),
        (["--teachers"], "at least one teacher"),
        (["--optim.batch-size", "512"], "larger than the data set of 200 images"),
        (["--optim.batch-size", "1"], "at least 2"),
        (["--ladder.blocks", "0", "5"], "blocks 0 to 1"),
        (["--teachers", TEACHER, TEACHER], "two teachers are called resnet10t"),
        (["--teachers", "file:/nowhere/w.pth?model=resnet10t"], "no weights at"),
    ],
)
def test_what_does_not_fit_together_is_found_before_training(
    changes: list[str], expected: str, digits: Path, tmp_path: Path, capsys
):
    code, said = attempt(capsys, *distill_words(digits, tmp_path / "run", *changes))
    assert (code, expected in said) == (2, True), said
    assert not list((tmp_path / "run").glob("checkpoints/*"))


@pytest.mark.parametrize("num", [0, 1])
def test_an_empty_folder_and_a_single_image_are_explained(num: int, digits: Path, tmp_path: Path, capsys):
    folder = tmp_path / "images"
    folder.mkdir()
    for path in sorted((digits / "train" / "0").iterdir())[:num]:
        shutil.copy(path, folder)
    code, said = attempt(
        capsys, "distill", "debug", "--data.root", str(folder), "--out", str(tmp_path / "run")
    )
    assert code == 2
    assert ("no image" in said) if num == 0 else ("data set of 1 image" in said), said


def test_teacher_weights_of_another_architecture_are_listed(digits: Path, tmp_path: Path, capsys):
    save_file(timm.create_model("resnet18", num_classes=0).state_dict(), tmp_path / "w.safetensors")
    teacher = f"file:{tmp_path}/w.safetensors?model=vit_tiny_patch16_224"
    code, said = attempt(capsys, *distill_words(digits, tmp_path / "run", "--teachers", teacher))
    assert code == 2 and "another architecture" in said and "missing" in said
    assert len(said) < 4000


def test_a_folder_of_another_run_is_not_touched(run: Path, digits: Path, capsys):
    files = [path for path in run.rglob("*") if path.is_file() and path.name != "run.lock"]
    before = {path: path.read_bytes() for path in files}
    code, said = attempt(capsys, *distill_words(digits, run, "--optim.lr", "0.5"))
    assert code == 2 and "optim.lr" in said and "another --out" in said
    assert all(path.read_bytes() == content for path, content in before.items())


def test_a_corrected_command_may_use_the_same_folder(digits: Path, tmp_path: Path, capsys):
    for root, code in ((tmp_path / "nope", 2), (digits, 0)):
        assert attempt(capsys, *distill_words(root, tmp_path / "run", *SHORT))[0] == code


def test_paths_may_be_spelled_in_several_ways(run: Path, digits: Path, capsys, monkeypatch):
    monkeypatch.chdir(digits)
    words = ["distill", "debug", "--data.root", "train/", "--out", str(run)]
    assert attempt(capsys, *words, "--optim.epochs", "0.4", "--optim.warmup-epochs", "0.1")[0] == 0


def test_a_configuration_of_an_earlier_version_is_taken_up(run: Path, digits: Path, tmp_path: Path, capsys):
    old = tmp_path / "old"
    shutil.copytree(run, old)
    config = json.loads((old / "config.json").read_text())
    del config["loss"]["drop_prob"]
    (old / "config.json").write_text(json.dumps(config))
    assert main(["distill", str(old), "--out", str(old)]) == 0


def test_the_released_file_loads_like_its_run(run: Path):
    x = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    torch.testing.assert_close(unic.load(run / "encoder.safetensors")(x).cls, unic.load(run)(x).cls)


@pytest.mark.parametrize("code", ["def", "import nothing_like_it", "raise SystemExit(0)"])
def test_a_broken_plugin_is_one_sentence(code: str, tmp_path: Path, capsys):
    (tmp_path / "broken.py").write_text(code)
    exit_code, said = attempt(capsys, "--plugin", str(tmp_path / "broken.py"), "teachers", "list")
    assert exit_code == 2 and "broken.py" in said and "Traceback" not in said


def test_images_that_vanish_during_a_run_cost_no_finished_step(
    digits: Path, tmp_path: Path, capsys, monkeypatch
):
    from unic.data import loader

    reads = iter(range(1_000_000))

    def read_image(path: str):
        if next(reads) >= 50:
            raise loader.BadImage(path, "the disk is gone")
        return original(path)

    original = loader.read_image
    monkeypatch.setattr(loader, "read_image", read_image)
    options = ("--statistics.warmup-batches", "0", "--data.max-bad", "1", "--speed.workers", "0")
    code, said = attempt(capsys, *distill_words(digits, tmp_path / "run", *options))
    assert code == 2 and "cannot be read" in said
    (checkpoint,) = (tmp_path / "run" / "checkpoints").glob("step-*")
    assert checkpoint.name == "step-00000006"  # 50 images are six batches of eight, and two more


def test_debug_shows_the_traceback(tmp_path: Path):
    with pytest.raises(unic.core.errors.ConfigError):
        main(["--debug", "evaluate", "efficientnet_lit0", "--data-root", str(tmp_path)])


PLUGIN = '''
"""A teacher, a data set and an evaluation, in one file."""
import timm
from safetensors.torch import save_file
from pathlib import Path
from unic.data.datasets import DATASETS, DatasetSpec
from unic.data.folders import read_image_folder
from unic.evals.registry import EVALUATIONS, Evaluation
from unic.teachers import TEACHERS, TeacherSpec

FOLDER = Path(__file__).parent

def weights():
    path = FOLDER / "mine.safetensors"
    if not path.exists():
        save_file(timm.create_model("resnet10t", num_classes=0).state_dict(), path)
    return path

TEACHERS.add("mine", TeacherSpec(name="mine", model="resnet10t", weights=weights, image_size=32,
                                 licence="MIT", source="https://example.org"))
DATASETS.add("halves", DatasetSpec(name="halves", read=lambda root, split: read_image_folder(root / "digits", split),
                                   layout="digits/train and digits/test", num_classes=10))

def mean_norm(encoder, data, options):
    return [data.result("norm", "mean", data.features("test").norm(dim=1).mean().item(), protocol="norm-1", unit="")]

EVALUATIONS.add("norm", Evaluation("norm", mean_norm, "mean length of the test features"))
'''


def test_one_plugin_file_adds_a_teacher_a_data_set_and_an_evaluation(digits: Path, tmp_path: Path, capsys):
    plugin = tmp_path / "my_plugin.py"
    plugin.write_text(PLUGIN)
    out = tmp_path / "run"
    words = distill_words(digits, out, "--teachers", "mine", *SHORT)
    assert main(["--plugin", str(plugin), *words]) == 0
    words = ["evaluate", "mine", str(out), "--dataset", "halves", "--data-root", str(digits.parent)]
    words += ["--evals", "norm"]
    assert main([*words, "--plugin", str(plugin)]) == 0
    assert main(["teachers", "list"]) == 0
    assert "mine" in capsys.readouterr().out
    (record,) = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert record["evaluation"] == "norm" and record["dataset"] == "halves" and record["value"] > 0


def test_a_machine_that_cannot_compile_is_told_what_to_do(monkeypatch, capsys):
    def verb(words: list[str]) -> int:
        raise InductorError(RuntimeError("Failed to find C compiler."), None)

    monkeypatch.setattr("unic.cli.distill.run", verb)
    code, said = attempt(capsys, "distill", "debug")
    assert code == 2
    assert (
        "Failed to find C compiler." in said and "--speed.kernels exact" in said and "Traceback" not in said
    )
    with pytest.raises(InductorError):
        main(["distill", "debug", "--debug"])
