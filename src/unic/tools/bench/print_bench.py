"""The figures for the terminal: a row a part, a column a setting, then what they mean for the recipe."""

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from unic.tools.bench.random_teacher import RANDOM
from unic.tools.bench.timed_step import PARTS


def print_measured(found: dict[str, Any], console: Console) -> None:
    """found: as `measure` gives it."""
    console.print(_settings(found))
    console.print()
    for line in _lines(found):
        console.print(escape(line), highlight=False, soft_wrap=True)


def _settings(found: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, caption_justify="left")
    table.add_column(f"{found['batch']} images of {found['image_size']} px a step", no_wrap=True)
    for name in found["settings"]:
        table.add_column(name, justify="right")
    rows = found["settings"].values()
    for part in PARTS:
        table.add_row(
            f"{part.replace('_', ' ')}, s", *(f"{row['seconds_by_part'][part]:.4f}" for row in rows)
        )
    table.add_row("step, s", *(f"{row['seconds']:.4f}" for row in rows))
    table.add_row(
        "fastest to slowest, s", *(f"{row['seconds_least']:.3f}-{row['seconds_most']:.3f}" for row in rows)
    )
    table.add_row("images/s", *(f"{row['images_per_second']:.2f}" for row in rows))
    table.add_row("share of the matrix-product peak", *(f"{row['share_of_matmul_peak']:.0%}" for row in rows))
    table.add_row("peak memory, GB", *(f"{row['peak_memory_bytes'] / 1e9:.2f}" for row in rows))
    table.add_row("host waits for the device", *(_syncs(row["host_syncs"]) for row in rows))
    table.add_row("micro-batch", *(str(row["micro_batch"]) for row in rows))
    return table  # fmt: skip


def _lines(found: dict[str, Any]) -> list[str]:
    flops, peaks, shared = found["flops_per_image"], found["matmul_flops_per_second"], found["bytes_reduced"]
    reading, whole = found["reading"], found["whole_recipe"]
    random = [name for name, weights in found["teachers"].items() if weights == RANDOM]
    uncounted = [name for name, count in flops["teachers"].items() if count is None]
    lines = [_ratio(found)]
    lines += [_compared(precision, parity) for precision, parity in found["parity"].items()]
    lines += [
        f"an image: {flops['counted'] / 1e9:.2f} GFLOP counted; the share of the peak is that of what is counted, "
        "also where fast leaves some out",
        f"matrix products of 2048 x 2048 here: bf16 {peaks['bf16'] / 1e9:,.0f} GFLOP/s, "
        f"fp32 {peaks['fp32'] / 1e9:,.0f} GFLOP/s ({found['processor']}, {found['threads']} threads)",
        f"between processes a step would share {shared['metrics_and_moments'] / 1e3:.0f} kB of sums and "
        f"{shared['gradients'] / 1e6:.0f} MB of gradients",
        f"reading: {reading['images_per_second']:.0f} images/s with {reading['workers']} data processes beside this one"
        f"{', made-up photographs of 500 px' if reading['made_up'] else ''}",
        f"the whole recipe ({whole['images_seen']:,} images seen, of {whole['training_images']:,}): "
        f"{_hours(max(whole['hours_of_steps'], whole['hours_of_reading']))} here at the rate of fast bf16; "
        f"{_hours(whole['h200_hours'])} on one H200 at {whole['h200_utilisation']:.0%} of its peak",
    ]
    if random:
        lines.append(f"random weights, which take the same time: {', '.join(random)}")
    if uncounted:
        lines.append(f"not in the FLOP, because only their files tell their shapes: {', '.join(uncounted)}")
    return lines


def _ratio(found: dict[str, Any]) -> str:
    if found["ratio"] is None:
        return "no ratio: exact and fast do not compute the same loss, so their times cannot be compared"
    return f"fast is {found['ratio']:.2f} times as fast as exact, in bf16"


def _compared(precision: str, parity: dict[str, Any]) -> str:
    return (
        f"losses of exact and fast, {precision}: {parity['loss_exact']:.6f} and {parity['loss_fast']:.6f}, relative "
        f"difference {parity['loss_difference']:.1e} (at most {parity['tolerance']:.0e}); of the gradients' norm "
        f"{parity['gradient_norm_difference']:.1e}"
    )


def _syncs(count: int | None) -> str:
    return "none to count" if count is None else str(count)


def _hours(hours: float) -> str:
    return f"{hours:,.0f} hours" if hours >= 10 else f"{hours:.2g} hours"
