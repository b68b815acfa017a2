"""Reading smears: what is left behind, memory, arrays, and whatever bytes come."""

from __future__ import annotations

import hashlib
import struct
import subprocess
import sys
import threading
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from encoded import (
    ALPHA,
    FIELD,
    GREY,
    SAMPLES,
    with_channel,
)
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from leukokit.errors import ImageError
from leukokit.smear import Smear, read_image, read_smear


def test_nothing_reaches_the_terminal_and_tifffile_speaks_up_elsewhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(SAMPLES["lzw"])
    ifd = struct.unpack_from("<I", data, 4)[0]
    next_page = ifd + 2 + 12 * struct.unpack_from("<H", data, ifd)[0]
    struct.pack_into("<I", data, next_page, len(data) + 1000)
    (tmp_path / "a.tif").write_bytes(data)
    assert read_image(tmp_path / "a.tif").shape == (60, 80, 3)
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff_file:
        len(tiff_file.pages)
    assert "invalid" in caplog.text


def test_files_are_closed(tmp_path: Path) -> None:
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("open files are counted in /proc, which is not here")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for kind, data in SAMPLES.items():
        for name, content in ((f"{kind}.a", data), (f"{kind}.b", data[: len(data) // 2])):
            (tmp_path / name).write_bytes(content)
            with suppress(ImageError):
                read_smear(tmp_path / name)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_threads_read_alike_and_leave_the_warning_filters(tmp_path: Path) -> None:
    filters = list(warnings.filters)
    for kind, data in SAMPLES.items():
        (tmp_path / kind).write_bytes(data)
    expected = {kind: read_image(tmp_path / kind) for kind in SAMPLES}
    differing: list[str] = []

    def read_all() -> None:
        for _ in range(5):
            differing.extend(k for k in SAMPLES if not np.array_equal(read_image(tmp_path / k), expected[k]))

    threads = [threading.Thread(target=read_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert differing == []
    assert list(warnings.filters) == filters


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_memory_stays_at_two_copies(kind: str, tmp_path: Path) -> None:
    """A field of 36 megapixels (108 MB) takes less than 2.4 times its size while it is read."""
    pytest.importorskip("resource", reason="memory is measured by the resource module, which is not here")
    path = tmp_path / "large"
    options: dict[str, Any] = {"compression": "tiff_lzw"} if kind == "TIFF" else {}
    Image.new("RGB", (6000, 6000), (200, 150, 180)).save(path, kind, **options)
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from leukokit.smear import read_smear\n"
        "small, large = sys.argv[1:]\n"
        "read_smear(small)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert read_smear(large).width == 6000\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
        "assert not {'torch', 'cv2', 'scipy'} & set(sys.modules)\n"
    )
    small = tmp_path / "small"
    small.write_bytes(SAMPLES["jpg" if kind == "JPEG" else "lzw"])
    run = subprocess.run(
        [sys.executable, "-c", code, str(small), str(path)], capture_output=True, text=True, check=True
    )
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(run.stdout) * unit < 2.4 * 6000 * 6000 * 3 + 16e6


# --- arrays ---------------------------------------------------------------------------------------


def test_smear_from_an_array() -> None:
    smear = Smear.from_array(FIELD, Path("made.png"))
    assert (smear.width, smear.height) == (70, 48)
    assert smear.path == Path("made.png")
    assert smear.sha256 == hashlib.sha256(FIELD.tobytes()).hexdigest()
    turned = Smear.from_array(FIELD.transpose(1, 0, 2))
    assert turned.image.flags.c_contiguous
    assert turned.sha256 == hashlib.sha256(FIELD.transpose(1, 0, 2).tobytes()).hexdigest()


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (FIELD / 255, "float64"),
        (GREY, r"\(48, 70\)"),
        (with_channel(FIELD, ALPHA), r"\(48, 70, 4\)"),
        (FIELD[:0], "at least one pixel"),
        ([[1, 2, 3]], "list"),
    ],
)
def test_wrong_arrays_are_refused(image: Any, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        Smear.from_array(image)


# --- whatever comes -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "a.img"


def reads_or_refuses(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    try:
        smear = read_smear(path, max_pixels=100_000)
    except ImageError as error:
        assert "\n" not in str(error)
    else:
        assert smear.image.ndim == 3
        assert 0 < smear.width * smear.height <= 100_000


FUZZ = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    database=None,
)
MAGIC = [b"", b"II*\0", b"MM\0+", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF\x20\0\0\0WEBPVP8L"]


@FUZZ
@given(magic=st.sampled_from(MAGIC), data=st.binary(max_size=300))
@example(magic=b"BM", data=b"")
def test_random_bytes(scratch: Path, magic: bytes, data: bytes) -> None:
    reads_or_refuses(scratch, magic + data)


@FUZZ
@given(kind=st.sampled_from(sorted(SAMPLES)), data=st.data())
def test_mutated_images(scratch: Path, kind: str, data: st.DataObject) -> None:
    content = bytearray(SAMPLES[kind])
    # Headers, and a TIFF's directory at its end, are where a changed byte matters.
    near_an_end = st.integers(0, 250).flatmap(lambda at: st.sampled_from([at, len(content) - 1 - at]))
    places = st.one_of(near_an_end, st.integers(0, len(content) - 1))
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=8)):
        content[place] = value
    kept = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    reads_or_refuses(scratch, bytes(content[:kept]))
