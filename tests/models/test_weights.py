"""Files of weights: read without running code, loaded whole or not at all."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from unic.core.errors import WeightsError
from unic.models.weights import load_strictly, read_weights


def layer() -> nn.Linear:
    return nn.Linear(3, 2)


@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
def test_torch_files_are_read_with_the_usual_wrappers(tmp_path: Path, wrapper: str | None):
    state = layer().state_dict()
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / "w.pth")
    assert torch.equal(read_weights(tmp_path / "w.pth")["weight"], state["weight"])


def test_safetensors_are_read(tmp_path: Path):
    save_file(layer().state_dict(), tmp_path / "w.safetensors")
    assert set(read_weights(tmp_path / "w.safetensors")) == {"weight", "bias"}


class Attack:
    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self):
        return (os.mkdir, (str(self.canary),))


def test_a_malicious_pickle_does_not_run(tmp_path: Path):
    canary = tmp_path / "canary"
    for number, content in enumerate([{"model": Attack(canary)}, {"w": torch.ones(1), "x": Attack(canary)}]):
        path = tmp_path / f"{number}.pth"
        torch.save(content, path)
        with pytest.raises(WeightsError, match=r"posix\.mkdir\), which unic does not unpickle") as refused:
            read_weights(path)
        assert "weights_only" not in str(refused.value)  # torch's own advice is to run the code
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Attack(canary)))
    with pytest.raises(WeightsError):
        read_weights(tmp_path / "raw.pth")
    assert not canary.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "damage",
    [0.0, 0.001, 0.1, 0.5, 0.9, 0.999, b"<html>404</html>", b"PK\x03\x04", bytes(range(256)) * 40],
)
def test_a_file_that_is_cut_short_or_something_else_is_one_sentence(
    tmp_path: Path, suffix: str, damage: float | bytes
):
    """damage: the share of the file that is left, or what is there in its place."""
    path = tmp_path / f"w{suffix}"
    state = nn.Linear(30, 20).state_dict()
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    content = path.read_bytes()
    path.write_bytes(damage if isinstance(damage, bytes) else content[: int(damage * len(content))])
    with pytest.raises(WeightsError, match=r"w\."):
        read_weights(path)


def test_a_network_pickled_whole_is_refused_by_its_name(tmp_path: Path):
    torch.save(layer(), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"Linear\), which unic does not unpickle"):
        read_weights(tmp_path / "w.pth")


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.pth"):
        read_weights(tmp_path / "nothing.pth")


def test_weights_of_another_architecture_list_at_most_ten_keys_and_change_nothing():
    model = nn.Sequential(*[nn.Linear(2, 2) for _ in range(12)])
    before = model[0].weight.clone()
    state = {f"other.{i}": torch.ones(1) for i in range(30)} | {"0.weight": torch.ones(3, 3)}
    with pytest.raises(WeightsError) as error:
        load_strictly(model, state, "w.pth")
    text = str(error.value)
    assert "23 missing" in text and "30 unexpected" in text and "0.weight is (3, 3), expected (2, 2)" in text
    assert text.count("other.") == 10
    assert torch.equal(model[0].weight, before)


def test_weights_that_are_not_finite_are_refused():
    state = layer().state_dict()
    state["bias"] = torch.tensor([1.0, float("nan")])
    with pytest.raises(WeightsError, match="bias has infinite or undefined"):
        load_strictly(layer(), state, "w.pth")


@pytest.mark.parametrize("assign", [False, True])
def test_half_precision_and_whole_numbers_become_what_the_model_has(assign: bool):
    state = {"weight": torch.ones(3, 2, dtype=torch.float16), "bias": torch.arange(3)}
    model = nn.Linear(2, 3)
    load_strictly(model, state, "w.pth", assign=assign)
    assert model.weight.dtype == model.bias.dtype == torch.float32
    assert model.bias.tolist() == [0, 1, 2]


def test_tensors_without_values_are_refused(tmp_path: Path):
    torch.save({"w": torch.empty(2, device="meta")}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"without values: w"):
        read_weights(tmp_path / "w.pth")
