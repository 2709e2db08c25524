"""Bytes alive at once, against sums by hand."""

import pytest
import torch
from torch import nn

from unic.tools.doctor.peak_memory import LiveBytes, parameter_bytes

FLOAT = 4


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_peak_is_the_input_and_output_of_the_widest_layer(mode):
    model = nn.Sequential(nn.Linear(10, 1000), nn.ReLU(), nn.Linear(1000, 7))
    images = torch.zeros(50, 10)
    with mode(), LiveBytes(model) as live:
        model(images)
    assert live.peak == 2 * 50 * 1000 * FLOAT  # what enters the ReLU and what leaves it
    assert parameter_bytes(model) == (10 * 1000 + 1000 + 1000 * 7 + 7) * FLOAT


def test_views_and_work_in_place_take_nothing_more():
    x = torch.zeros(100)
    with LiveBytes(nn.Identity()) as live:
        y = x + 1
        y.view(10, 10).transpose(0, 1).add_(1)
    assert live.peak == 100 * FLOAT


def test_what_is_gone_does_not_count():
    x = torch.zeros(100)
    with LiveBytes(nn.Identity()) as live:
        for _ in range(10):
            torch.neg(x)  # made and dropped
    assert live.peak == 100 * FLOAT


def test_weights_do_not_count_among_what_a_batch_needs():
    model = nn.Linear(100, 100, bias=False)
    with torch.no_grad(), LiveBytes(model) as live:
        model.weight.t()
        model.weight.mul_(1.0)
    assert live.peak == 0
