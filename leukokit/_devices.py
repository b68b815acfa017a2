"""Where networks run: devices by name, and what a forked process may still use."""

from __future__ import annotations

import os

from leukokit.errors import ConfigError, PluginError

_used_in: int | None = None
"""The process in which a pipeline was first used; in a forked one it is another."""


def resolve_device(device: str) -> str:
    """Return the definite device for ``auto`` or ``cuda``.

    Raises:
        ConfigError: no such device.
    """
    if device == "cpu":
        return device
    import torch

    if device == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    name, _, number = device.partition(":")
    if name != "cuda" or (number and not number.isdigit()):
        raise ConfigError(f"--device {device}: must be auto, cpu, cuda or cuda:N")
    if int(number or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"--device {device}: there is no such GPU here ({torch.cuda.device_count()} found); use cpu"
        )
    return f"cuda:{number or 0}"


def disable_tf32() -> None:
    """Let GPUs convolve with all 24 bits, not ten as cuDNN would: counts are then the CPU's."""
    import torch

    torch.backends.cudnn.allow_tf32 = False


def prepare_process(device: str) -> None:
    """Make networks usable in this process; call it before each use.

    After a fork there is one thread only: those of torch and OpenCV are gone, and would be waited for.

    Raises:
        PluginError: the process was forked, and a GPU does not survive that.
    """
    global _used_in
    if _used_in in (None, os.getpid()):
        _used_in = os.getpid()
        return
    if device != "cpu":
        raise PluginError(
            "a pipeline on a GPU does not work in a forked process; start it with the method 'spawn', "
            "e.g. multiprocessing.set_start_method('spawn')"
        )
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    _used_in = os.getpid()
