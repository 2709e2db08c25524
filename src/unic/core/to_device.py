"""Small tensors on their way to the device, and when it has done its work."""

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on `device`, by way of pinned memory: a copy from ordinary memory can make the host wait."""
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def wait_for(device: torch.device) -> None:
    """Until the device has done what it was told, so that a clock measures it."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
