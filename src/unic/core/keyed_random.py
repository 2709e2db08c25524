"""Randomness without state: every draw is a function of (seed, purpose, view, image index, draw number).

So the number of workers, processes and restarts cannot change a decision, and there is no generator to save.
The hash is a chain of MurmurHash3 32-bit finalisers (public domain, A. Appleby); 24 bits make the float.
"""

import contextlib
import zlib
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

_MASK = 0xFFFFFFFF


def uniforms(
    seed: int, purpose: str, view: Int64[Tensor, " B"], index: Int64[Tensor, " B"], count: int
) -> Float[Tensor, "B count"]:
    """`count` independent draws from [0, 1) for each image; the same on every device and in every process."""
    state = torch.full_like(index, _seed_hash(seed, purpose))
    for key in (view, index & _MASK, index >> 32):
        state = _mix(state ^ _mix((key + 0x9E3779B9) & _MASK))
    numbers = torch.arange(1, count + 1, device=index.device, dtype=torch.int64)
    bits = _mix(state[:, None] ^ _mix(numbers * 0x85EBCA6B & _MASK)[None])
    return (bits >> 8).to(torch.float32) / 2**24


def generator(seed: int, purpose: str, *keys: int) -> np.random.Generator:
    """A NumPy generator for draws that are not per image, such as the order of an epoch."""
    return np.random.default_rng([seed & _MASK, zlib.crc32(purpose.encode()), *keys])


@contextlib.contextmanager
def seeded_torch(seed: int, purpose: str) -> Iterator[None]:
    """For libraries that insist on torch's global generator (initialisation of weights); it is put back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(_seed_hash(seed, purpose))
        yield


def _seed_hash(seed: int, purpose: str) -> int:
    return int(generator(seed, purpose).integers(0, 2**32))


def _mix(bits: Tensor) -> Tensor:
    """MurmurHash3's fmix32 on 32-bit values held in int64 (products wrap; only their low 32 bits count)."""
    bits = (bits ^ (bits >> 16)) * 0x85EBCA6B & _MASK
    bits = (bits ^ (bits >> 13)) * 0xC2B2AE35 & _MASK
    return bits ^ (bits >> 16)
