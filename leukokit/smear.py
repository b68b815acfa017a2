"""A field of view as the house works on it, and how an image file becomes one.

Every format ends as RGB uint8 (H, W, 3) with its orientation applied; whatever was decided on the way
(a page chosen, a depth found, transparency filled) is a note. A file that cannot be read whole is an
``ImageError``: a smear that is half grey would be counted as if its cells were missing.

*Depth.* Cameras of 10, 12 and 14 bits store their values in 16 without saying so, and a bright-field smear
nearly fills its camera's range. So samples wider than 8 bits, where the file does not state their depth, are
scaled by the smallest of ``FULL_SCALES`` that holds their largest value: 0..4095 for a largest value of 3870.
Floating-point samples are taken to run from 0 to 1 where none exceeds ``FLOAT_WHITE_LIMIT``, else by the same
list, and with negative values from their least to their largest.
"""

from __future__ import annotations

import hashlib
import logging
import stat
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from leukokit.errors import ImageError

if TYPE_CHECKING:
    from PIL import Image
    from tifffile import TiffPage

    from leukokit.standardize import Standardization

RGBImage = npt.NDArray[np.uint8]

MAX_PIXELS: Final = 400_000_000
"""Most pixels read by default: 20,000 x 20,000, 1.2 GB decoded."""
FULL_SCALES: Final = tuple(2**bits - 1 for bits in (8, 10, 12, 14, 16, 24, 32))
"""Largest values that a camera or a converter may mean by white."""
FLOAT_WHITE_LIMIT: Final = 2.0
"""Floating-point samples up to this are of the range 0..1; resampling overshoots a little."""
BAND_PIXELS: Final = 1 << 20
"""Pixels converted at a time, so that no second copy of a large field is made on the way."""

_PROCESS_WIDE = threading.Lock()
_TIFF_READING = threading.local()
_ORIENTATION = 0x0112
_AGAIN = "copy or export it again"
_DAMAGED_EXIF = "damaged EXIF used as far as it goes"


@dataclass(frozen=True, slots=True, eq=False)
class Smear:
    """One field of view of a stained smear; checked when made.

    Attributes:
        image: RGB uint8 (H, W, 3), C-contiguous, H and W at least 1, orientation applied.
        path: the file it was read from, if any.
        sha256: hexadecimal SHA-256 of the file's bytes, or of the pixels' where there is no file.
        notes: what a user should be told of how it was read, a sentence each.
        standardization: its light and stain as measured, where the pipeline wants them evened out.

    Raises:
        ImageError: ``image`` is not such an array.
    """

    image: RGBImage
    path: Path | None
    sha256: str
    notes: tuple[str, ...] = ()
    standardization: Standardization | None = None

    def __post_init__(self) -> None:
        image: Any = self.image
        what = "a smear's image must be an RGB uint8 array of shape (H, W, 3)"
        if not isinstance(image, np.ndarray):
            raise ImageError(f"{what}, not {type(image).__name__}")
        if image.dtype != np.uint8:
            raise ImageError(f"{what}, not {image.dtype}; scale it to 0..255 and convert it")
        if image.ndim != 3 or image.shape[2] != 3:
            raise ImageError(f"{what}, not {image.shape}; repeat a grey channel, drop an alpha channel")
        if image.size == 0:
            raise ImageError(f"{what} with at least one pixel, not {image.shape}")
        object.__setattr__(self, "image", np.ascontiguousarray(image))

    @classmethod
    def from_array(cls, image: RGBImage, path: Path | None = None) -> Smear:
        """Make a smear of pixels already in memory.

        Args:
            image: RGB uint8 (H, W, 3); copied only if it is not C-contiguous.
            path: where it comes from, for messages and results; not opened.

        Raises:
            ImageError: another type, dtype or shape, or no pixels.
        """
        checked = cls(image, path, "")
        return cls(checked.image, path, hashlib.sha256(checked.image.data).hexdigest())

    @property
    def width(self) -> int:
        """Pixels a row."""
        return int(self.image.shape[1])

    @property
    def height(self) -> int:
        """Rows."""
        return int(self.image.shape[0])


def read_image(path: Path | str) -> RGBImage:
    """``read_smear(path).image``: RGB uint8 (H, W, 3)."""
    return read_smear(path).image


def read_smear(path: Path | str, max_pixels: int = MAX_PIXELS) -> Smear:
    """Read a JPEG, PNG, BMP, WebP or TIFF file (its first page), told apart by content, not by name.

    Args:
        path: the file.
        max_pixels: refuse larger images; judged by the header, before anything is decoded.

    Raises:
        ImageError: the file is missing, unreadable, empty, truncated, damaged, too large or no image of
            these formats; one line naming the file, the cause and what to do.
    """
    path = Path(path)
    try:
        _require_regular_file(path)
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            stream.seek(0)
            image, notes = _decode(stream, max_pixels)
    except ImageError as error:
        raise ImageError(f"{shown(path)}: {error}") from error.__cause__
    except Exception as error:  # decoders of damaged files raise nearly everything
        raise ImageError(f"{shown(path)}: {_cause(error)}") from error
    return Smear(image, path, digest, tuple(notes))


def shown(path: Path | str) -> str:
    """A path as one printable line: control characters and undecodable bytes are escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(path)
    )


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
    reason = shown(" ".join(str(error).split()))[:120] or type(error).__name__
    return f"is truncated or damaged ({reason}); {_AGAIN}"


def _decode(stream: BinaryIO, max_pixels: int) -> tuple[RGBImage, list[str]]:
    head = stream.read(32)
    stream.seek(0)
    notes: list[str] = []
    if not head:
        raise ImageError(f"is empty (0 bytes); {_AGAIN}")
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        image, orientation = _decode_tiff(stream, max_pixels, notes)
    elif head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        image, orientation = _decode_webp(stream, max_pixels, notes)
    elif head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM")):
        image, orientation = _decode_pillow(stream, head, max_pixels, notes)
    else:
        raise ImageError(
            "is not an image of a known kind (JPEG, PNG, BMP, WebP, TIFF); export it as PNG or TIFF"
        )
    return _oriented(image, orientation), notes


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"has no pixels ({width} x {height}); {_AGAIN}")
    if width * height > max_pixels:
        raise ImageError(
            f"is too large: {width} x {height} = {width * height:,} pixels, the limit is {max_pixels:,}; "
            "crop or reduce it, or raise the limit"
        )


# --- JPEG, PNG, BMP -------------------------------------------------------------------------------


def _decode_pillow(
    stream: BinaryIO, head: bytes, max_pixels: int, notes: list[str]
) -> tuple[RGBImage, object]:
    from PIL import BmpImagePlugin, JpegImagePlugin, PngImagePlugin

    # The classes themselves, because Image.open applies Pillow's own process-wide pixel limit.
    opener: Callable[[BinaryIO], Any] = BmpImagePlugin.BmpImageFile
    if head.startswith(b"\x89"):
        opener = PngImagePlugin.PngImageFile
    elif head.startswith(b"\xff"):
        opener = JpegImagePlugin.JpegImageFile
    with _caught_warnings() as caught:
        picture = opener(stream)  # a JPEG's resolution is looked up in its EXIF at once
    if caught:
        notes.append(_DAMAGED_EXIF)
    width, height = picture.size
    _check_size(width, height, max_pixels)
    _load_whole(picture)
    orientation = _orientation(picture.getexif, notes)
    if head.startswith(b"\x89") and head[24] == 16:
        # Pillow keeps only the upper byte of 16-bit colours, which leaves 12-bit cameras four bits.
        import imagecodecs

        del picture
        stream.seek(0)
        return _Raster.of_channels(imagecodecs.png_decode(stream.read())).to_rgb(notes), orientation
    return _pillow_rgb(picture, notes), orientation


def _load_whole(picture: Any) -> None:
    from PIL import ImageFile

    if not ImageFile.LOAD_TRUNCATED_IMAGES:
        picture.load()
        return
    # Another library in this process has asked for half images; this one must not get any.
    with _PROCESS_WIDE:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            picture.load()
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = True


def _pillow_rgb(picture: Any, notes: list[str]) -> RGBImage:
    from PIL import Image

    width, height = picture.size
    has_alpha = picture.mode in {"RGBA", "LA", "PA"} or "transparency" in picture.info
    mode = "RGBA" if has_alpha else "RGB"
    out = np.empty((height, width, 3), np.uint8)
    transparent = False
    for top, bottom in _bands(height, width):
        # A 1:1 resize of a box is a crop to which Pillow's pixel limit does not apply.
        band = picture.resize((width, bottom - top), Image.Resampling.NEAREST, box=(0, top, width, bottom))
        pixels = np.asarray(band if band.mode == mode else band.convert(mode))
        if has_alpha:
            transparent |= _flatten(pixels[..., :3], pixels[..., 3], out[top:bottom])
        else:
            out[top:bottom] = pixels
    _note_transparency(transparent, notes)
    return out


@contextmanager
def _caught_warnings() -> Iterator[list[warnings.WarningMessage]]:
    # The warning filters belong to the process: two threads must not swap them at once.
    with _PROCESS_WIDE, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


def _orientation(read_exif: Callable[[], Image.Exif], notes: list[str]) -> object:
    try:
        with _caught_warnings() as caught:
            orientation: object = read_exif().get(_ORIENTATION, 1)
    except Exception:  # whatever is wrong with the EXIF, the pixels are whole
        notes.append("unreadable EXIF ignored")
        return 1
    if caught and _DAMAGED_EXIF not in notes:
        notes.append(_DAMAGED_EXIF)
    return orientation


def _oriented(image: RGBImage, orientation: object) -> RGBImage:
    """Undo the TIFF/EXIF orientation (2..8; anything else is upright)."""
    transposed = image.transpose(1, 0, 2)
    turned = {
        2: image[:, ::-1],
        3: image[::-1, ::-1],
        4: image[::-1],
        5: transposed,
        6: transposed[:, ::-1],
        7: transposed[::-1, ::-1],
        8: transposed[::-1],
    }
    return np.ascontiguousarray(turned.get(orientation, image) if isinstance(orientation, int) else image)


# --- WebP -----------------------------------------------------------------------------------------


def _decode_webp(stream: BinaryIO, max_pixels: int, notes: list[str]) -> tuple[RGBImage, object]:
    # Not by Pillow, which holds four canvases of four bytes a pixel while it decodes.
    import imagecodecs

    data = stream.read()
    width, height = _webp_size(data)
    _check_size(width, height, max_pixels)
    image = _Raster.of_channels(imagecodecs.webp_decode(data)).to_rgb(notes)
    return image, _orientation(partial(_webp_exif, data), notes)


def _webp_exif(data: bytes) -> Image.Exif:
    from PIL import Image

    exif = Image.Exif()
    at = 12
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"EXIF":
            exif.load(data[at + 8 : at + 8 + length])
            break
        at += 8 + length + length % 2
    return exif


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height from the first chunk (RFC 9649, sections 2.5 to 2.7)."""
    kind, start = data[12:16], data[20:30]
    if len(start) == 10 and kind == b"VP8X":
        return int.from_bytes(start[4:7], "little") + 1, int.from_bytes(start[7:10], "little") + 1
    if len(start) == 10 and kind == b"VP8L":
        bits = int.from_bytes(start[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if len(start) == 10 and kind == b"VP8 ":
        return int.from_bytes(start[6:8], "little") & 0x3FFF, int.from_bytes(start[8:10], "little") & 0x3FFF
    raise ImageError(f"is truncated or damaged (no WebP header); {_AGAIN}")


# --- TIFF -----------------------------------------------------------------------------------------


def _decode_tiff(stream: BinaryIO, max_pixels: int, notes: list[str]) -> tuple[RGBImage, object]:
    import tifffile

    size = stream.seek(0, 2)
    stream.seek(0)
    with _quiet_tifffile():
        with _caught_warnings():
            tiff = tifffile.TiffFile(stream)
        with tiff:
            with _caught_warnings():
                pages = len(tiff.pages)
                page = tiff.pages[0].aspage()
                _check_tiff(page, size, max_pixels)
            if pages > 1:
                notes.append(f"page 1 of {pages} read")
            samples = page.asarray(squeeze=False, buffersize=1 << 26)
            raster = _tiff_raster(page, samples, notes)
            return raster.to_rgb(notes), page.tags.valueof(_ORIENTATION, 1)


def _check_tiff(page: TiffPage, size: int, max_pixels: int) -> None:
    from tifffile import TIFF

    _check_size(page.imagewidth, page.imagelength, max_pixels)
    if page.imagedepth > 1:
        raise ImageError(f"is a volume of {page.imagedepth} planes; export one plane")
    if page.dtype is None or page.dtype.kind not in "buif" or page.samplesperpixel > 8:
        raise ImageError(
            f"has {page.samplesperpixel} channels of type {page.dtype}, no photograph; export it as RGB"
        )
    if page.compression != 1 and page.compression not in TIFF.DECOMPRESSORS:
        raise ImageError(
            f"has the unsupported TIFF compression {int(page.compression)}; save it uncompressed or with LZW"
        )
    if page.is_tiled and page.tilewidth * page.tilelength > max(max_pixels, 1 << 24):
        raise ImageError(f"has tiles of {page.tilewidth} x {page.tilelength} pixels; {_AGAIN}")
    # Segments that are missing would be filled with black without a word.
    wanted = int(np.prod(page.chunked, dtype=np.int64))
    spans = list(zip(page.dataoffsets, page.databytecounts, strict=False))[:wanted]
    whole = sum(offset > 0 and count > 0 and offset + count <= size for offset, count in spans)
    if page.is_contiguous and page.dataoffsets[0] + page.nbytes > size:
        whole = min(whole, wanted - 1)
    if whole < wanted:
        parts = "tiles" if page.is_tiled else "strips"
        raise ImageError(f"is truncated: {wanted - whole} of its {wanted} {parts} are missing; {_AGAIN}")


def _tiff_raster(page: TiffPage, samples: npt.NDArray[Any], notes: list[str]) -> _Raster:
    """Say what the samples, (separate, 1, H, W, contiguous), mean."""
    channels = np.moveaxis(samples[:, 0, :, :, 0], 0, -1) if page.planarconfig == 2 else samples[0, 0]
    count = channels.shape[-1]
    photometric, colours, kind = int(page.photometric), 1, "grey"
    palette = None
    if photometric in (0, 1) and count == 3:
        notes.append("three unnamed channels taken for red, green and blue")
        colours, kind = 3, "rgb"
    elif photometric == 3:
        if page.colormap is None:
            raise ImageError(f"is a palette image without its palette; {_AGAIN}")
        palette = (page.colormap >> 8 if page.colormap.max() > 255 else page.colormap).T.astype(np.uint8)
    elif photometric == 2 or (photometric == 6 and page.compression in (6, 7)):
        colours, kind = 3, "rgb"  # the JPEG decoder has turned YCbCr into RGB
    elif photometric in (5, 6) and channels.dtype.kind in "bu":
        colours, kind = (4, "cmyk") if photometric == 5 else (3, "ycbcr")
    elif photometric not in (0, 1):
        name = getattr(page.photometric, "name", photometric)
        raise ImageError(f"has unsupported TIFF colours ({name}); export it as RGB")
    if count < colours:
        raise ImageError(f"has {count} channels where its colours need {colours}; {_AGAIN}")
    extra = [int(sample) for sample in page.extrasamples][: count - colours]
    alpha = extra[0] if extra and extra[0] in (1, 2) else 0
    if count - colours > bool(alpha):
        notes.append(f"{count - colours - bool(alpha)} further channels ignored")
    return _Raster(
        colours=channels[..., :colours],
        kind=kind,
        alpha=channels[..., colours] if alpha else None,
        premultiplied=alpha == 1,
        inverted=photometric == 0,
        bits=page.bitspersample if isinstance(page.bitspersample, int) else 8 * channels.dtype.itemsize,
        palette=palette,
    )


class _DropWhileReading(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not getattr(_TIFF_READING, "active", False)


_DROP = _DropWhileReading()


@contextmanager
def _quiet_tifffile() -> Iterator[None]:
    """Keep tifffile's log of a damaged file off the terminal, for this thread's reading alone."""
    logging.getLogger("tifffile").addFilter(_DROP)
    _TIFF_READING.active = True
    try:
        yield
    finally:
        _TIFF_READING.active = False


# --- samples to RGB -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Raster:
    """Decoded samples and what they mean: ``colours`` (H, W, C) and ``alpha`` (H, W), of any real type."""

    colours: npt.NDArray[Any]
    kind: str
    alpha: npt.NDArray[Any] | None = None
    premultiplied: bool = False
    inverted: bool = False
    bits: int = 8
    palette: RGBImage | None = None

    @classmethod
    def of_channels(cls, pixels: npt.NDArray[Any]) -> _Raster:
        """Of (H, W) or (H, W, C) pixels with C of 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA."""
        channels = pixels[..., None] if pixels.ndim == 2 else pixels
        count = channels.shape[2]
        colours = 3 if count >= 3 else 1
        return cls(
            colours=channels[..., :colours],
            kind="rgb" if colours == 3 else "grey",
            alpha=channels[..., colours] if count > colours else None,
            bits=8 * pixels.dtype.itemsize,
        )

    def to_rgb(self, notes: list[str]) -> RGBImage:
        """RGB uint8 (H, W, 3), made band by band; already such samples are returned as they are."""
        height, width = self.colours.shape[:2]
        plain = self.palette is None and not self.inverted and self.bits == 8
        if self.colours.dtype == np.uint8 and self.kind == "rgb" and plain and self.alpha is None:
            return np.ascontiguousarray(self.colours)
        scale = _Scale.of(self.colours, self.bits) if self.palette is None else None
        if scale is not None and scale.note:
            notes.append(scale.note)
        alpha_scale = None if self.alpha is None else _Scale.of(self.alpha, self.bits)
        out = np.empty((height, width, 3), np.uint8)
        transparent = False
        for top, bottom in _bands(height, width):
            rgb = self._band(self.colours[top:bottom], scale)
            if self.alpha is None or alpha_scale is None:
                out[top:bottom] = rgb
                continue
            opacity = alpha_scale.apply(self.alpha[top:bottom])
            transparent |= _flatten(rgb, opacity, out[top:bottom], self.premultiplied)
        _note_transparency(transparent, notes)
        return out

    def _band(self, samples: npt.NDArray[Any], scale: _Scale | None) -> RGBImage:
        if self.palette is not None or scale is None:
            assert self.palette is not None
            return self.palette[samples[..., 0].astype(np.intp)]
        values = scale.apply(samples)
        if self.inverted:
            values = 255 - values
        if self.kind in ("cmyk", "ycbcr"):
            from PIL import Image

            mode = "CMYK" if self.kind == "cmyk" else "YCbCr"
            size = (values.shape[1], values.shape[0])
            values = np.asarray(Image.frombytes(mode, size, values.tobytes()).convert("RGB"))
        return values


@dataclass(frozen=True, slots=True)
class _Scale:
    """Which sample values become black and white, and what to say of it."""

    low: float
    high: float
    note: str = ""

    @classmethod
    def of(cls, samples: npt.NDArray[Any], bits: int) -> _Scale:
        kind = samples.dtype.kind
        if kind == "b" or samples.dtype == np.uint8:
            return cls(0, 1 if kind == "b" else 2 ** min(bits, 8) - 1)
        if kind in "iu" and bits not in (16, 32, 64):
            return cls(0, 2**bits - 1, f"{bits}-bit values scaled by 255/{2**bits - 1}")
        least, peak = _finite_range(samples)
        name = f"{'floating-point' if kind == 'f' else f'{bits}-bit'} values"
        if kind == "f" and (least < 0 or peak > FULL_SCALES[-1]):
            return cls(least, max(peak, least + 1e-12), f"{name} stretched from {least:.6g}..{peak:.6g}")
        if kind == "f" and peak <= FLOAT_WHITE_LIMIT:
            return cls(0, 1, f"{name} scaled by 255")
        full = next((full for full in FULL_SCALES if peak <= full), max(peak, 1))
        if peak <= 0:
            full = FULL_SCALES[0]
        return cls(0, full, f"{name} scaled by 255/{full:.0f}")

    def apply(self, samples: npt.NDArray[Any]) -> RGBImage:
        """Samples as uint8, rounded; values outside, infinities and NaN end at black or white."""
        if samples.dtype == np.uint8 and (self.low, self.high) == (0, 255):
            return samples
        if samples.dtype in (np.dtype(np.uint8), np.dtype(np.uint16)):
            values = np.arange(np.iinfo(samples.dtype).max + 1)
            table: RGBImage = np.minimum(values * (255 / self.high) + 0.5, 255).astype(np.uint8)
            looked_up: RGBImage = table[samples]
            return looked_up
        with np.errstate(all="ignore"):
            scaled = (samples.astype(np.float64) - self.low) * (255 / (self.high - self.low)) + 0.5
        return np.clip(np.nan_to_num(scaled, nan=0.0), 0, 255).astype(np.uint8)


def _finite_range(samples: npt.NDArray[Any]) -> tuple[float, float]:
    least, peak = np.inf, -np.inf
    for top, bottom in _bands(*samples.shape[:2]):
        band = samples[top:bottom]
        if samples.dtype.kind == "f":
            band = band[np.isfinite(band)]
        if band.size:
            least, peak = min(least, float(band.min())), max(peak, float(band.max()))
    return (least, peak) if least <= peak else (0.0, 0.0)


def _flatten(rgb: RGBImage, alpha: npt.NDArray[np.uint8], out: RGBImage, premultiplied: bool = False) -> bool:
    """Lay ``rgb`` (H, W, 1 or 3) on white into ``out``; return whether anything shone through."""
    if alpha.size and int(alpha.min()) == 255:
        out[:] = rgb
        return False
    opacity = alpha[..., None].astype(np.uint16)
    white = 255 * (255 - opacity)
    over = rgb.astype(np.uint16) * (255 if premultiplied else opacity)
    # 255 * 255 + 127 fits 16 bits; premultiplied colours brighter than their alpha would not.
    over = np.minimum(over, 255 * 255 - white)
    out[:] = (over + white + 127) // 255
    return True


def _note_transparency(transparent: bool, notes: list[str]) -> None:
    if transparent:
        notes.append("transparent parts laid on white")


def _bands(height: int, width: int) -> Iterator[tuple[int, int]]:
    rows = max(1, BAND_PIXELS // max(width, 1))
    for top in range(0, height, rows):
        yield top, min(top + rows, height)
