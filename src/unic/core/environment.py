"""What someone needs to repeat a result."""

import importlib.metadata
import os
import platform
import sys
import time
from typing import Any

import torch


def environment() -> dict[str, Any]:
    """Versions, machine and command: what someone needs to repeat a result."""
    packages = ("unic", "torch", "torchvision", "timm", "numpy", "Pillow", "safetensors", "scikit-learn")
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": str(accelerator) if accelerator else None,
        "packages": {name: importlib.metadata.version(name) for name in packages},
    }
