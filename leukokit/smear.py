"""A field of view with its pixels, and how an image file becomes one.

Every format becomes RGB uint8 (H, W, 3) with its orientation applied. Each decision on the way (the page
that was read, the depth that was assumed, transparency that was filled) is a note. A file that cannot be
read whole is an ``ImageError``, because a field that is half grey would be counted as if it had no cells
there.

``leukokit.images`` decodes the formats; ``leukokit.images.depth`` reduces samples wider than 8 bits.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from leukokit._text import printable
from leukokit.errors import ImageError
from leukokit.images.checks import REMEDY
from leukokit.images.decoding import decode, open_encoded
from leukokit.images.metadata import upright_size
from leukokit.images.pixels import RGBImage

if TYPE_CHECKING:
    from leukokit.images.standardize import Standardization

__all__ = ["MAX_PIXELS", "ImageHeader", "RGBImage", "Smear", "read_header", "read_image", "read_smear"]

MAX_PIXELS: Final = 400_000_000
"""Most pixels read by default: 20,000 x 20,000, 1.2 GB decoded."""


@dataclass(frozen=True, slots=True, eq=False)
class Smear:
    """One field of view of a stained smear; checked when made.

    Attributes:
        image: RGB uint8 (H, W, 3), C-contiguous, H and W at least 1, orientation applied.
        path: the file it was read from, if any.
        sha256: hexadecimal SHA-256 of the file's bytes, or of the pixels' where there is no file.
        notes: sentences for the user about how it was read.
        standardization: its light and stain as measured, where the pipeline standardises it.

    Raises:
        ImageError: ``image`` is not such an array.

    Examples:
        >>> import numpy as np
        >>> field = Smear.from_array(np.full((480, 640, 3), 230, np.uint8))
        >>> field.width, field.height
        (640, 480)
    """

    image: RGBImage
    path: Path | None
    sha256: str
    notes: tuple[str, ...] = ()
    standardization: Standardization | None = None

    def __post_init__(self) -> None:
        """Check the image; one that is not C-contiguous is copied."""
        image: Any = self.image
        wanted = "a smear's image must be an RGB uint8 array of shape (H, W, 3)"
        if not isinstance(image, np.ndarray):
            raise ImageError(f"{wanted}, not {type(image).__name__}")
        if image.dtype != np.uint8:
            raise ImageError(f"{wanted}, not {image.dtype}; scale it to 0..255 and convert it")
        if image.ndim != 3 or image.shape[2] != 3:
            raise ImageError(f"{wanted}, not {image.shape}; repeat a grey channel, drop an alpha channel")
        if image.size == 0:
            raise ImageError(f"{wanted} with at least one pixel, not {image.shape}")
        object.__setattr__(self, "image", np.ascontiguousarray(image))

    @classmethod
    def from_array(cls, image: RGBImage, path: Path | None = None) -> Smear:
        """Make a field of view from pixels in memory.

        Args:
            image: RGB uint8 (H, W, 3); copied only if it is not C-contiguous.
            path: its origin, for messages and results; never opened.

        Raises:
            ImageError: another type, dtype or shape, or no pixels.
        """
        checked = cls(image, path, "")
        return cls(checked.image, path, hashlib.sha256(checked.image.data).hexdigest())

    @property
    def width(self) -> int:
        """Pixels per row."""
        return int(self.image.shape[1])

    @property
    def height(self) -> int:
        """Number of rows."""
        return int(self.image.shape[0])


def read_image(path: Path | str) -> RGBImage:
    """Return ``read_smear(path).image``: RGB uint8 (H, W, 3)."""
    return read_smear(path).image


def read_smear(path: Path | str, max_pixels: int = MAX_PIXELS) -> Smear:
    """Read a JPEG, PNG, BMP, WebP or TIFF file; its format is recognised by content, not by name.

    Args:
        path: the file.
        max_pixels: larger images are refused by their header, before anything is decoded.

    Raises:
        ImageError: the file is missing, unreadable, empty, truncated, damaged, too large or not an image of
            these formats; one line naming the file, the cause and what to do.

    Examples:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (64, 48), "white").save(f"{folder}/field.png")
        ...     read_smear(f"{folder}/field.png").image.shape
        (48, 64, 3)
    """
    path = Path(path)
    with _open(path) as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        stream.seek(0)
        image, notes = decode(stream, max_pixels)
    return Smear(image, path, digest, tuple(notes))


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What is known of an image file before it is decoded.

    Attributes:
        width: of the image as ``read_smear`` gives it, orientation applied, pixels.
        height: likewise.
        peak_bytes: memory that reading it takes at most, about.
    """

    width: int
    height: int
    peak_bytes: int


def read_header(path: Path | str, max_pixels: int = MAX_PIXELS) -> ImageHeader:
    """Read an image file's size, and the memory that reading it takes, without decoding it.

    Args:
        path: the file.
        max_pixels: larger images are refused.

    Raises:
        ImageError: see ``read_smear``; damage of the pixels is not found.

    Examples:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     exif = Image.Exif()
        ...     exif[0x0112] = 6  # turned by 90 degrees
        ...     Image.new("RGB", (64, 48)).save(f"{folder}/field.jpg", exif=exif)
        ...     header = read_header(f"{folder}/field.jpg")
        >>> header.width, header.height
        (48, 64)
    """
    with _open(Path(path)) as stream:
        encoded = open_encoded(stream, max_pixels, [])
        return ImageHeader(
            *upright_size(encoded.width, encoded.height, encoded.orientation), encoded.peak_bytes
        )


@contextmanager
def _open(path: Path) -> Iterator[BufferedReader]:
    """Open an image file; whatever goes wrong within is an ``ImageError`` that names it."""
    try:
        _require_regular_file(path)
        with path.open("rb") as stream:
            yield stream
    except ImageError as error:
        raise ImageError(f"{printable(path)}: {error}") from error.__cause__
    except Exception as error:  # decoders of damaged files raise nearly everything
        raise ImageError(f"{printable(path)}: {_cause(error)}") from error


def _require_regular_file(path: Path) -> None:
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise ImageError("is a folder, not an image file; name the images in it")
    if not stat.S_ISREG(mode):
        raise ImageError("is a device or a pipe, not an image file; save the image to a file first")


def _cause(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file; check the path"
    if isinstance(error, PermissionError):
        return "permission denied; make the file readable for this user"
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be read ({error.strerror}); check the path and the disk"
    if isinstance(error, MemoryError):
        return "not enough memory to decode it; crop or reduce it"
    reason = printable(" ".join(str(error).split()))[:120] or type(error).__name__
    return f"is truncated or damaged ({reason}); {REMEDY}"
