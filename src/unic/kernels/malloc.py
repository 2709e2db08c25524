"""Memory that is given back to the system and asked for again at every step costs time: each page is cleared anew."""

import ctypes
import sys

# From glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_NEVER = 2**31 - 1


def disable_trim() -> bool:
    """Lets this process keep what it frees, large blocks too, until it ends; whether the C library can do that.

    For a process that does the same over and over, on the CPU; it changes malloc for all that runs in it.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, _NEVER))
