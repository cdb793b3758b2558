"""Memory that the parent makes and its workers inherit as a descriptor. It has no name and no file."""

import os
import tempfile


def make_memory(name: str, size: int) -> int:
    """A descriptor of `size` zero bytes; pages are taken when they are used. `name` shows in /proc."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create(name)
    else:  # not Linux: a file without a name
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor
