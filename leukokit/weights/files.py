"""Networks to and from safetensors files, in half precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from leukokit._files import partial_path, write_error
from leukokit._text import one_line
from leukokit.errors import OutputError, WeightsError


def save_weights(network: Any, path: Path) -> None:
    """Write the weights as half-precision safetensors, whole or not at all.

    Raises:
        OutputError: the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {
        key: (value.half() if value.is_floating_point() else value).contiguous()
        for key, value in network.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    partial = partial_path(path)
    try:
        save_file(tensors, partial)
        partial.replace(path)
        path.chmod(0o644)
    except OSError as error:
        raise write_error(path, error) from error
    except SafetensorError as error:
        raise OutputError(f"{path}: cannot be written ({one_line(error)})") from error
    finally:
        partial.unlink(missing_ok=True)


def load_weights(network: Any, path: Path) -> None:
    """Load safetensors weights into the network, in single precision.

    Raises:
        WeightsError: missing or damaged file, one of another architecture, or with NaN or infinite numbers.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        stored = load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: not readable as safetensors ({error})") from error
    tensors = {key: value.float() if value.is_floating_point() else value for key, value in stored.items()}
    # A number that is not finite makes all outputs so, and no cell would be found, without a word.
    broken = [key for key, value in tensors.items() if not bool(value.isfinite().all())]
    if broken:
        raise WeightsError(f"{path}: holds numbers that are not finite ({broken[0]}); train or get it again")
    try:
        missing, unexpected = network.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise WeightsError(f"{path}: weights of another architecture (tensor shapes differ)") from error
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or unexpected:
        differ = f"{len(missing)} tensors missing, {len(unexpected)} too many"
        raise WeightsError(f"{path}: weights of another architecture ({differ})")
