"""Where networks run: devices by name, and what a forked process may still use."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from leukokit.errors import ConfigError, PluginError

_used_in: int | None = None
"""The process in which a pipeline was first used; in a forked one it is another."""


def resolve_device(device: str) -> str:
    """Return the definite device for ``auto`` or ``cuda``.

    Raises:
        ConfigError: no such device.
    """
    if device == "cpu" or (device == "auto" and not _may_have_gpu()):
        return "cpu"
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


def _may_have_gpu() -> bool:
    """Whether a GPU is possible: torch, which takes seconds to import, is not asked where none can be."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return False
    if sys.platform == "darwin":
        return False
    if sys.platform != "linux":
        return True
    # The devices of NVIDIA's driver, of Windows' subsystem for Linux, and of AMD's driver.
    return any(Path(name).exists() for name in ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd"))


def disable_tf32() -> None:
    """Let GPUs convolve with all 24 bits, not ten as cuDNN would: counts are then the CPU's."""
    import torch

    torch.backends.cudnn.allow_tf32 = False


def prepare_process(device: str) -> None:
    """Make networks usable in this process; call it before each use.

    After a fork there is one thread only: those of torch are gone, and would be waited for.

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
    # OpenCV does without threads that are gone; telling it to use fewer would wait for them.
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)
    _used_in = os.getpid()
