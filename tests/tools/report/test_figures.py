import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unic.core.errors import DataError
from unic.tools.report.chart_data import TEXT_COLOUR
from unic.tools.report.matplotlib_charts import MAX_NAMES, loss_charts, plot_charts, plot_losses

TEACHERS = ("dino", "hf-hub:org/ibot")


def metrics(count: int, start: float = 1.0) -> list[dict]:
    records = []
    for step in range(count):
        record = {
            "step": step,
            "loss": start / (step + 1),
            "lr": 1e-3,
            "images_per_second": 90.0,
            "rate": 0.5,
        }
        for teacher in TEACHERS:
            record |= {f"loss/{teacher}/{token}": start / (step + 2) for token in ("cls", "patches")}
            record[f"kept/{teacher}"] = 0.75
        records.append(record | ({"val/loss": 0.4} if step % 5 == 0 else {}))
    return records


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.mark.parametrize("count", [1, 2, 50])
def test_a_picture_of_1200_pixels_with_every_teachers_colour(tmp_path, count):
    plot_losses(metrics(count), tmp_path / "losses.png")
    image = pixels(tmp_path / "losses.png")
    assert image.shape == (800, 1200, 3)
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
        assert (image == colour).all(axis=2).any()
    assert [path.name for path in tmp_path.iterdir()] == ["losses.png"]


def test_gaps_missing_keys_and_odd_records_are_drawn_around(tmp_path):
    records = metrics(10)
    records[3]["loss"] = math.nan
    records[4]["loss"] = math.inf
    del records[5]["kept/dino"]
    records += [{"note": "no step"}, {"step": 99, "event": "saved", "loss": None}]
    plot_losses(records, tmp_path / "a.png")
    assert pixels(tmp_path / "a.png").std() > 0


@pytest.mark.parametrize("keys", [("loss",), ("val/loss",), ("kept/dino",), ("loss/dino/cls",)])
def test_any_single_curve_is_enough(tmp_path, keys):
    records = [{name: r[name] for name in ("step", *keys) if name in r} for r in metrics(8)]
    plot_losses(records, tmp_path / "a.png")
    assert pixels(tmp_path / "a.png").std() > 0


def test_an_explosion_and_losses_of_zero_are_drawn(tmp_path):
    plot_losses(metrics(100, start=230.0), tmp_path / "a.png")
    plot_losses([{"step": 0, "loss": 0.0}, {"step": 1, "loss": 0.0}], tmp_path / "b.png")


@pytest.mark.parametrize("records", [[], [{"step": 1, "lr": 0.1}], [{"step": 1, "loss": math.nan}]])
def test_nothing_to_draw_is_an_error_and_leaves_no_file(tmp_path, records):
    with pytest.raises(DataError, match="nothing to draw"):
        plot_losses(records, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_no_global_state_of_matplotlib_is_touched(tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    plot_losses(metrics(3), tmp_path / "a.png")
    assert dict(matplotlib.rcParams) == before


def test_the_figure_of_one_run_has_the_lines_and_colours_of_the_page():
    losses, images = loss_charts({"run": metrics(30), "empty": []}, {"dino": 4, "hf-hub:org/ibot": 5})
    assert [line.name for line in losses.series][:2] == ["training", "validation"]
    assert [line.colour for line in losses.series] == [TEXT_COLOUR, TEXT_COLOUR, 4, 4, 5, 5]
    assert [line.y[0] for line in images.series] == [75.0, 75.0] and images.zero


def test_the_losses_of_several_runs_are_one_chart_and_a_long_legend_is_cut(tmp_path):
    names = [f"run {number}" for number in range(MAX_NAMES + 5)]
    (chart,) = loss_charts(dict.fromkeys(names, metrics(5)), {name: n for n, name in enumerate(names)})
    assert [line.name for line in chart.series] == names
    plot_charts([chart], tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()  # words are drawn as shapes, and stand in comments beside them
    assert "run 19" in text and "and 5 more" in text and "run 20" not in text
