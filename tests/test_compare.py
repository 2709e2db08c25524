"""What encoders are called where several stand side by side."""

from pathlib import Path

from unic.compare import baselines, labels


def test_short_names_are_used_until_two_are_the_same(tmp_path: Path):
    runs = [str(tmp_path / place / "run") for place in ("a", "b")]
    for run in runs:
        Path(run).mkdir(parents=True)
    assert labels([runs[0], "dino_vitb16"]) == {runs[0]: "run", "dino_vitb16": "dino_vitb16"}
    found = labels([*runs, "timm:resnet18?cls=pooled", "timm:resnet18?image_size=96"])
    assert list(found.values()) == [*runs, "timm:resnet18?cls=pooled", "timm:resnet18?image_size=96"]
    assert baselines([*runs, "dino_vitb16"]) == ["dino_vitb16"]
