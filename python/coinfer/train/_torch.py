"""PyTorch, which the extra ``[train]`` installs; whoever lacks it is told so in one sentence.

Everything under `coinfer.train` that needs torch imports it from here, when it is used and not before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from coinfer.errors import UnsupportedError

try:
    import torch
except ImportError as error:  # pragma: no cover - the tests install it
    _msg = "coinfer.train needs PyTorch: pip install 'coinfer[train]'"
    raise UnsupportedError(_msg) from error

__all__ = ["device_of", "one_thread", "torch"]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread: sums then have one order, and equal seeds give equal bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def device_of(name: str) -> torch.device:
    """Return the device of that name; ``"auto"`` is a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.device(name)
    except RuntimeError as error:
        msg = f"device must be 'auto' or a torch device such as 'cpu' or 'cuda', not {name!r}"
        raise UnsupportedError(msg) from error
