"""How a process on a CPU keeps its memory."""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h of glibc


def keep_freed_memory() -> None:
    """With glibc: what one step frees stays with the process for the next.

    By default glibc takes large blocks from the system and gives them back, and the system clears them page by page each time.
    Measured in docs/lab-notes.md. Elsewhere it does nothing.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
