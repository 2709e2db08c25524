import json
import logging
import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unic.core.errors import ConfigError, DataError
from unic.data.bad_images import BadImages
from unic.data.config import DataConfig, ViewConfig
from unic.data.crop import evaluation_view, training_view
from unic.data.decode import BadImage, read_image
from unic.data.eval_loader import evaluation_batches, evaluation_views
from unic.data.folders import read_paths
from unic.data.labeled_images import ImageList
from unic.data.loader import StepPlan, training_batches
from unic.data.sources import Sources, epoch_order, read_sources
from unic.data.worker_processes import auto_workers
from unic.method.types import Batch

SMALL = DataConfig(views=ViewConfig(image_size=16))
Folder = Callable[..., Path]


def train(sources: Sources, cfg: DataConfig = SMALL, **options: Any) -> list[list[Batch]]:
    options = {"seed": 0, "global_batch": 4, "num_steps": 6, "bad": BadImages()} | options
    reading = {name: options.pop(name) for name in ("bad", "workers", "pin_memory") if name in options}
    steps = range(options.pop("start_step", 0), options.pop("num_steps"))
    return list(training_batches(StepPlan(sources=sources, cfg=cfg, **options), steps, **reading))


def joined(steps: list[list[Batch]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    batches = [batch for step in steps for batch in step]
    return tuple(
        torch.cat([getattr(batch, name) for batch in batches]) for name in ("images", "index", "view")
    )


def assert_same(some: list[list[Batch]], others: list[list[Batch]]) -> None:
    for one, other in zip(joined(some), joined(others), strict=True):
        assert torch.equal(one, other)


def sizes(*counts: int) -> Sources:
    return Sources(tuple(ImageList(tuple(f"/{k}/{i}" for i in range(n))) for k, n in enumerate(counts)))


def spoil(folder: Path, *numbers: int) -> None:
    for number in numbers:
        (folder / f"{number:03d}.png").write_bytes(b"spoilt")


def test_a_batch_holds_the_views_of_the_images_it_names(folder_of: Folder):
    folder = folder_of(10)
    paths = read_paths(folder)
    images, index, view = joined(train(read_sources([str(folder)])))
    assert view.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    for pixels, i, v in zip(images, index.tolist(), view.tolist(), strict=True):
        assert torch.equal(pixels, training_view(read_image(paths[i]), 0, v, i, SMALL.views))


@pytest.mark.parametrize("options", [{"workers": 1}, {"workers": 3}])
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_order_and_pixels_do_not_depend_on_workers(options: dict[str, int], folder_of: Folder):
    sources = read_sources([str(folder_of(10))])
    assert_same(train(sources, **options), train(sources))


@pytest.mark.parametrize("world", [2, 3, 4])
def test_ranks_share_each_step_of_the_single_process(world: int, folder_of: Folder):
    sources = read_sources([str(folder_of(10))])
    ranks = [train(sources, rank=rank, world=world) for rank in range(world)]
    together = [[batch for step in steps for batch in step] for steps in zip(*ranks, strict=True)]
    assert_same(together, train(sources))


@pytest.mark.parametrize("global_batch", [4, 7, 9])
def test_micro_batches_are_the_step_in_parts_as_many_on_every_rank(global_batch: int, folder_of: Folder):
    sources = read_sources([str(folder_of(10))])
    for world in (1, 2, 3):
        for micro in (1, 2, 3, 100):
            ranks = [
                train(sources, global_batch=global_batch, num_steps=2, rank=r, world=world, micro_batch=micro)
                for r in range(world)
            ]
            assert len({len(step) for steps in ranks for step in steps}) == 1
            assert all(len(batch.index) for steps in ranks for step in steps for batch in step)
            if global_batch % world == 0:
                assert max(len(batch.index) for steps in ranks for step in steps for batch in step) <= micro
            together = [[b for step in steps for b in step] for steps in zip(*ranks, strict=True)]
            assert_same(together, train(sources, global_batch=global_batch, num_steps=2))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("start", [1, 2, 5, 6])
def test_a_start_in_the_middle_gives_the_rest_and_reads_nothing_before(
    start: int, workers: int, folder_of: Folder
):
    folder = folder_of(10)
    sources = read_sources([str(folder)])
    whole = train(sources)
    if start == 5:  # all that step 5 does not need may be gone
        for i in set(range(10)) - set(whole[5][0].index.tolist()):
            (folder / f"{i:03d}.png").unlink()
    rest = train(sources, start_step=start, workers=workers)
    assert len(rest) == 6 - start
    if rest:
        assert_same(rest, whole[start:])


def test_each_image_comes_once_an_epoch(folder_of: Folder):
    _, index, view = joined(train(read_sources([str(folder_of(12))]), num_steps=9))
    for epoch in range(3):
        assert sorted(index[view == epoch].tolist()) == list(range(12))
    assert index[:12].tolist() != index[12:24].tolist()


def test_other_seeds_give_other_orders_and_views(folder_of: Folder):
    sources = read_sources([str(folder_of(10))])
    one, other = joined(train(sources)), joined(train(sources, seed=1))
    assert one[1].tolist() != other[1].tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_no_global_random_state_is_used(workers: int, folder_of: Folder):
    sources = read_sources([str(folder_of(6))])

    def states() -> tuple[bytes, str]:
        # Python's own is left out: beartype draws from it, to pick the items of a list that it checks.
        return torch.get_rng_state().numpy().tobytes(), str(np.random.get_state())

    before = states()
    train(sources, workers=workers)
    list(evaluation_batches(sources.paths(), 16, batch_size=4, workers=workers))
    assert states() == before


def test_iteration_may_stop_early_and_start_again(folder_of: Folder):
    sources = read_sources([str(folder_of(10))])
    plan = StepPlan(sources=sources, cfg=SMALL, seed=0, global_batch=4)
    steps = training_batches(plan, range(10**6), bad=BadImages(), workers=2)
    first = list(islice(steps, 3))
    del steps
    assert_same(first, train(sources, num_steps=3))


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    weights=st.lists(st.floats(0.01, 10), min_size=4, max_size=4),
    epochs=st.integers(1, 5),
)
def test_weighted_epochs_repeat_no_image_before_all_of_its_root_came(
    counts: list[int], weights: list[float], epochs: int
):
    sources, weights = sizes(*counts), weights[: len(counts)]
    orders = [epoch_order(sources, weights, 0, epoch) for epoch in range(epochs)]
    start, total = 0, sum(counts)
    for count, weight in zip(counts, weights, strict=True):
        views_of = Counter()
        for index, view in orders:
            assert len(index) == total
            mine = (index >= start) & (index < start + count)
            assert abs(mine.sum() - weight / sum(weights) * total) < 1
            views_of.update(zip(index[mine].tolist(), view[mine].tolist(), strict=True))
        assert not views_of or max(views_of.values()) == 1  # no view of an image comes twice
        seen = Counter(index for index, _ in views_of)
        assert not seen or max(seen.values()) - min(seen[i] for i in range(start, start + count)) <= 1
        start += count


def test_the_order_of_an_epoch_is_a_function_of_seed_and_epoch():
    sources = sizes(20, 5)
    for weights in ((), (1.0, 1.0)):
        index, view = epoch_order(sources, weights, 3, 2)
        again, _ = epoch_order(sources, weights, 3, 2)
        assert index.tolist() == again.tolist()
        assert index.tolist() != epoch_order(sources, weights, 4, 2)[0].tolist()
        assert index.tolist() != epoch_order(sources, weights, 3, 1)[0].tolist()
        assert index.dtype == view.dtype == np.int64


def test_a_root_of_weight_zero_is_left_out():
    index, _ = epoch_order(sizes(5, 5), (0.0, 2.0), 0, 0)
    assert sorted(index.tolist()) == sorted([5, 6, 7, 8, 9] * 2)


def test_several_roots_are_mixed_in_batches(folder_of: Folder, tmp_path: Path):
    one, two = folder_of(4, "one"), folder_of(6, "two")
    (tmp_path / "list.txt").write_text("two/000.png\ntwo/003.png\n")
    sources = read_sources([str(one), str(tmp_path / "list.txt")])
    assert len(sources) == 6
    assert sources.paths()[4:] == [str(two / "000.png"), str(two / "003.png")]
    cfg = DataConfig(root=("a", "b"), weights=(1.0, 1.0), views=SMALL.views)
    _, index, view = joined(train(sources, cfg, global_batch=6, num_steps=2))
    assert Counter((index >= 4).tolist()) == {True: 6, False: 6}
    assert len(set(zip(index.tolist(), view.tolist(), strict=True))) == 12


def test_identity_changes_with_any_file(folder_of: Folder):
    folder = folder_of(3)
    before = read_sources([str(folder)]).identity()
    assert read_sources([str(folder)]).identity() == before
    os.utime(folder / "001.png", ns=(1, 1))
    assert read_sources([str(folder)]).identity() != before


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_images_are_replaced_named_once_and_written_down(
    workers: int, folder_of: Folder, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    folder = folder_of(12)
    sources = read_sources([str(folder)])
    whole = joined(train(sources, num_steps=9))
    spoil(folder, 3, 7)
    bad = BadImages(tmp_path / "bad.jsonl")
    with caplog.at_level(logging.WARNING, logger="unic"):
        images, index, view = joined(train(sources, num_steps=9, bad=bad, workers=workers))
    assert set(index.tolist()) == set(range(12)) - {3, 7}
    touched = (whole[1] == 3) | (whole[1] == 7)
    assert torch.equal(index[~touched], whole[1][~touched])
    assert torch.equal(images[~touched], whole[0][~touched])
    paths = sources.paths()
    for pixels, i, v in zip(images, index.tolist(), view.tolist(), strict=True):
        assert torch.equal(pixels, training_view(read_image(paths[i]), 0, v, i, SMALL.views))
    spoilt = [str(folder / "003.png"), str(folder / "007.png")]
    assert sorted(bad.reasons) == spoilt
    assert sorted(record.args[0].path for record in caplog.records) == spoilt
    lines = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert sorted(line["path"] for line in lines) == spoilt
    assert all("not an image" in line["reason"] for line in lines)


def test_replacements_do_not_depend_on_workers_or_ranks(folder_of: Folder):
    folder = folder_of(12)
    sources = read_sources([str(folder)])
    spoil(folder, *range(6))
    expected = train(sources)
    assert_same(train(sources, workers=2), expected)
    ranks = [train(sources, rank=rank, world=2) for rank in range(2)]
    assert_same([[b for step in steps for b in step] for steps in zip(*ranks, strict=True)], expected)


def test_a_restart_writes_no_line_twice_and_ignores_one_cut_short(tmp_path: Path):
    file = tmp_path / "bad.jsonl"
    first = BadImages(file)
    first.add(BadImage("/a", "x"))
    first.add(BadImage("/a", "x"))
    with file.open("a") as lines:
        lines.write('{"path": "/b", "rea')
    again = BadImages(file)
    again.add(BadImage("/a", "x"))
    again.add(BadImage("/\udcff", "not UTF-8"))
    assert len(again) == 2
    lines = ['{"path": "/a", "reason": "x"}', '{"path": "/\\udcff", "reason": "not UTF-8"}']
    assert file.read_text().splitlines() == lines


def test_too_many_bad_images_are_an_error_with_the_figures():
    bad = BadImages()
    for i in range(4):
        bad.add(BadImage(f"/photos/{i}.jpg", "cut short"))
    assert not bad.too_many(400, 0.01)
    assert bad.too_many(399, 0.01)
    message = str(bad.error(200, 0.01))
    for words in ("4 of 200", "2.00%", "1.00%", "max_bad", "/photos/0.jpg: cut short", "/photos/2.jpg"):
        assert words in message
    assert "/photos/3.jpg" not in message


@pytest.mark.parametrize("workers", [0, 1])
def test_a_folder_of_only_bad_images_is_an_error_and_no_endless_search(workers: int, folder_of: Folder):
    folder = folder_of(5)
    spoil(folder, *range(5))
    with pytest.raises(DataError, match=r"100 images in a row cannot be read, the last: .*not an image"):
        train(read_sources([str(folder)]), workers=workers)


def take_a_signal_then_leave(folder: Path, leave_early: bool) -> None:
    os.setpgrp()
    plan = StepPlan(sources=read_sources([str(folder)]), cfg=SMALL, seed=0, global_batch=4)
    num_steps = 10**6 if leave_early else 8
    steps = training_batches(plan, range(num_steps), bad=BadImages(), workers=2)
    next(steps)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
        os.killpg(0, number)
    assert len(list(islice(steps, 7))) == 7
    globals()["steps"] = steps  # alive when the process ends, as in a traceback


@pytest.mark.parametrize("leave_early", [False, True])
def test_signals_to_the_group_spare_the_data_processes_and_leaving_does_not_wait(
    leave_early: bool, folder_of: Folder
):
    process = multiprocessing.get_context("fork").Process(
        target=take_a_signal_then_leave, args=(folder_of(10), leave_early)
    )
    process.start()
    process.join(20)
    code = process.exitcode
    process.kill()
    assert code == 0


def test_a_dead_data_process_is_explained(folder_of: Folder, monkeypatch: pytest.MonkeyPatch):
    sources, main = read_sources([str(folder_of(5))]), os.getpid()

    def die(_: str) -> None:
        assert os.getpid() != main
        os._exit(3)

    monkeypatch.setattr("unic.data.loader.read_image", die)
    with pytest.raises(DataError, match=r"a data process died .*fewer workers"):
        train(sources, workers=1)


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (1, 2), (2, 0), (3, 1), (20, 0)])
def test_evaluation_sees_every_image_once_over_all_ranks(world: int, workers: int, folder_of: Folder):
    paths = read_paths(folder_of(11))
    batches = [
        batch
        for rank in range(world)
        for batch in evaluation_batches(paths, 16, batch_size=4, rank=rank, world=world, workers=workers)
    ]
    assert torch.cat([batch.index for batch in batches]).tolist() == list(range(11))
    assert all(len(batch.index) <= 4 and (batch.view == -1).all() for batch in batches)
    pixels = torch.cat([batch.images for batch in batches])
    assert torch.equal(pixels, torch.stack([evaluation_view(read_image(path), 16) for path in paths]))


@pytest.mark.parametrize("workers", [0, 2])
def test_views_of_several_sizes_are_those_of_each_size_alone(workers: int, folder_of: Folder):
    paths = read_paths(folder_of(11))
    positions = [np.array([4, 5, 6]), np.array([9]), np.array([0, 1])]
    sizes = (24, 16, 31)
    found = list(evaluation_views(paths, sizes, positions, workers=workers))
    assert len(found) == 3
    for views, some in zip(found, positions, strict=True):
        for batch, size in zip(views, sizes, strict=True):
            assert batch.index.tolist() == some.tolist() and (batch.view == -1).all()
            alone = [evaluation_view(read_image(paths[i]), size) for i in some]
            assert torch.equal(batch.images, torch.stack(alone))


def test_an_image_is_decoded_once_for_all_sizes(folder_of: Folder, monkeypatch: pytest.MonkeyPatch):
    paths, decoded = read_paths(folder_of(5)), []
    monkeypatch.setattr(
        "unic.data.eval_loader.read_image", lambda path: decoded.append(path) or read_image(path)
    )
    spoil(Path(paths[1]).parent, 1)
    found = evaluation_views(paths, (16, 24), [np.arange(3), np.arange(3, 5)], on_bad="skip")
    assert [[batch.index.tolist() for batch in views] for views in found] == [[[0, 2]] * 2, [[3, 4]] * 2]
    assert decoded == paths


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_evaluation_image_is_an_error_or_left_out(
    workers: int, folder_of: Folder, caplog: pytest.LogCaptureFixture
):
    folder = folder_of(9)
    spoil(folder, 0, 1, 2, 4)
    images = ImageList(tuple(read_paths(folder)))
    with pytest.raises(BadImage, match=r"000.png: not an image .* \(and 2 more of its batch\)"):
        list(evaluation_batches(images, 16, batch_size=3, workers=workers))
    kept = [
        b.index.tolist() for b in evaluation_batches(images, 16, batch_size=3, workers=workers, on_bad="skip")
    ]
    assert kept == [[3, 5], [6, 7, 8]]
    assert len(caplog.records) == 4


def test_no_image_gives_no_batch():
    assert list(evaluation_batches([], 16, batch_size=3)) == []


def test_tiny_sets_work_or_say_why_not(folder_of: Folder):
    with pytest.raises(ConfigError, match="no images"):
        read_sources([])
    with pytest.raises(DataError, match="no image in this folder"):
        read_sources([str(folder_of(0, "none"))])
    one = read_sources([str(folder_of(1, "one"))])
    _, index, view = joined(train(one, global_batch=1, num_steps=3))
    assert (index.tolist(), view.tolist()) == ([0, 0, 0], [0, 1, 2])
    with pytest.raises(DataError, match="1 images are fewer than the global batch of 4"):
        train(one)
    with pytest.raises(ConfigError, match="global batch of 4 leaves some of 5 processes"):
        train(sizes(10), world=5)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"root": ("a", "b"), "weights": (1.0,)}, "1 weights for 2 roots"),
        ({"root": ("a",), "weights": (-1.0,)}, "weights"),
        ({"root": ("a",), "weights": (float("nan"),)}, "weights"),
        ({"root": ("a", "b"), "weights": (0.0, 0.0)}, "not all 0"),
        ({"max_bad": 5.0}, "max_bad"),
    ],
)
def test_impossible_data_settings_are_refused(wrong: dict[str, Any], words: str):
    with pytest.raises(ConfigError, match=words):
        DataConfig(**wrong)


def test_workers_follow_the_cores_of_a_process(monkeypatch: pytest.MonkeyPatch):
    for cores, processes, expected in ((1, 1, 0), (2, 1, 0), (4, 1, 3), (64, 1, 8), (16, 4, 3), (16, 8, 0)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, n=cores: set(range(n)))
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        assert auto_workers() == expected
