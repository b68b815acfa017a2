"""Fetch a public set from its home: resumed after a break, checked against its hash, unpacked with care.

pooch decides what to download and checks hashes; two things it does not do are here: resuming a
partly downloaded file (HTTP Range, RFC 9110 section 14), and unpacking an archive that may be hostile.
"""

from __future__ import annotations

import json
import logging
import shutil
import stat
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from leukokit.datasets.catalogue import PublicSet, SourceFile
from leukokit.errors import DataError

Progress = Callable[[str, int, int | None], None]
"""Told a file's name, the bytes that are there, and the bytes in all where the server says so."""

RECORD = "fetched.json"
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
CHUNK = 1 << 14
"""Bytes written at a time; of what arrives before a break, less than this is lost."""
TIMEOUT_S = (10, 60)
"""Longest wait for a connection and for the next bytes."""
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses after which asking again may help."""


@dataclass(frozen=True, slots=True)
class FetchedFile:
    """One fetched file.

    Attributes:
        path: the file itself.
        sha256: its hash, hexadecimal.
        known_before: whether the hash was held against the catalogue's or an earlier download's.
        unpacked: folder with an archive's content, ``None`` for any other file.
    """

    path: Path
    sha256: str
    known_before: bool
    unpacked: Path | None


def fetch(
    entry: PublicSet, out: Path, progress: Progress | None = None, attempts: int = 4
) -> list[FetchedFile]:
    """Fetch a set into ``out/NAME`` and unpack its archives there; what is there already is only checked.

    A hash that the catalogue does not know is recorded in ``fetched.json`` on first use, and a later
    download of the same address must give the same.

    Args:
        entry: the set.
        out: folder of all sets.
        progress: called as bytes arrive.
        attempts: downloads of one file tried in a row; each resumes where the last one broke off.

    Raises:
        DataError: no direct download, no response, a wrong hash, or an archive that is damaged or unsafe.
    """
    if not entry.files:
        raise DataError(f"{entry.name} has no direct download: {entry.access}; visit {entry.home}")
    folder = out / entry.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        record = _read_record(folder / RECORD)
        return [_fetch_file(entry, file, folder, record, progress, attempts) for file in entry.files]
    except OSError as error:
        raise DataError(
            f"{error.filename or folder}: cannot write the set ({error.strerror or error})"
        ) from error


def _fetch_file(
    entry: PublicSet,
    source: SourceFile,
    folder: Path,
    record: dict[str, dict[str, str]],
    progress: Progress | None,
    attempts: int,
) -> FetchedFile:
    import pooch

    earlier = record.get(source.name, {})
    recorded = earlier.get("sha256") if earlier.get("url") == source.url else None
    known = source.sha256 or recorded
    path = folder / source.name
    downloader = _ResumingDownloader(folder, source, known is not None, attempts, progress)
    fetcher = pooch.create(folder, base_url="", registry={source.name: known}, urls={source.name: source.url})
    try:
        with _quiet_pooch():
            fetcher.fetch(source.name, downloader=downloader)
    except ValueError as error:
        hint = "the catalogue's" if source.sha256 else f"the one recorded in {folder / RECORD}"
        raise DataError(
            f"{source.url}: the file's SHA-256 is not {hint} ({known}); it was not kept: "
            "the public file has changed or the download is damaged"
        ) from error
    digest = pooch.file_hash(str(path))
    unpacked = _unpacked_folder(path) if path.name.endswith(ARCHIVES) else None
    if unpacked is not None and (not unpacked.is_dir() or earlier.get("unpacked") != digest):
        if unpacked.exists() and "unpacked" not in earlier:
            raise DataError(f"{unpacked}: stands where {path.name} is to be unpacked; move it away")
        _unpack(path, unpacked)
    record[source.name] = {"url": source.url, "sha256": digest} | ({"unpacked": digest} if unpacked else {})
    _write_record(folder / RECORD, entry, record)
    return FetchedFile(path, digest, known is not None, unpacked)


class _ResumingDownloader:
    """A pooch downloader that keeps what has arrived in ``NAME.part`` and asks only for the rest."""

    def __init__(
        self, folder: Path, source: SourceFile, hash_known: bool, attempts: int, progress: Progress | None
    ):
        self.part = folder / f"{source.name}.part"
        self.note = folder / f"{source.name}.part.json"
        self.name, self.hash_known, self.attempts = source.name, hash_known, attempts
        self.progress = progress or (lambda *_: None)

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        import requests

        for attempt in range(1, self.attempts + 1):
            try:
                self._advance(url)
                break
            except (
                requests.ConnectionError,
                requests.Timeout,
                requests.exceptions.ChunkedEncodingError,
            ) as error:
                # What has arrived stays: the next attempt, or the next run, resumes there.
                if attempt == self.attempts:
                    raise DataError(
                        f"{url}: the download broke off {attempt} times ({type(error).__name__}); "
                        "check the connection and run the same command again, it resumes where it stopped"
                    ) from error
                time.sleep(0.5 * attempt)
            except requests.RequestException as error:
                raise DataError(f"{url}: cannot be downloaded ({type(error).__name__})") from error
        self.part.replace(output_file)
        self.note.unlink(missing_ok=True)

    def _advance(self, url: str) -> None:
        """One request, for what is missing; raises a ``requests`` error where it breaks off."""
        import requests

        start, headers = self._resume_point(url)
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
            if response.status_code == 416 or (
                response.status_code == 206 and _first_byte(response.headers) != start
            ):
                self.part.unlink(missing_ok=True)
                raise requests.ConnectionError("the server cannot resume a download")
            if response.status_code in PASSING:
                raise requests.ConnectionError(f"HTTP {response.status_code}")
            if response.status_code not in (200, 206):
                raise DataError(
                    f"{url}: the server responds with HTTP {response.status_code} ({response.reason}); "
                    "see its home"
                )
            if response.status_code == 200:
                start = 0
                self._note_version(url, response.headers)
            encoded = response.headers.get("Content-Encoding", "identity") != "identity"
            length = None if encoded else response.headers.get("Content-Length")
            total = start + int(length) if length and length.isdigit() else None
            done = start
            with self.part.open("ab" if start else "wb") as stream:
                for chunk in response.iter_content(CHUNK):
                    stream.write(chunk)
                    done += len(chunk)
                    self.progress(self.name, done, total)
            if total is not None and done != total:
                raise requests.ConnectionError(f"{done} of {total} bytes arrived")

    def _resume_point(self, url: str) -> tuple[int, dict[str, str]]:
        """Bytes that are there already, and the headers that ask for the rest of the same version."""
        headers = {"Accept-Encoding": "identity"}
        try:
            start = self.part.stat().st_size
            note = json.loads(self.note.read_text(encoding="utf-8"))
            version = str(note["version"])
            same = note["url"] == url
        except (OSError, ValueError, KeyError, TypeError):
            return 0, headers
        # Without a version to hold the server to, two versions could be joined and only a hash would tell.
        if not start or not same or not (version or self.hash_known):
            return 0, headers
        headers["Range"] = f"bytes={start}-"
        if version:
            headers["If-Range"] = version
        return start, headers

    def _note_version(self, url: str, headers: Any) -> None:
        version = headers.get("ETag", "")
        if not version or version.startswith("W/"):
            version = headers.get("Last-Modified", "")
        self.part.unlink(missing_ok=True)
        self.note.write_text(json.dumps({"url": url, "version": version}), encoding="utf-8")


def _first_byte(headers: Any) -> int:
    """Where a partial response starts, from ``Content-Range: bytes 5-9/10``; -1 if it does not say."""
    first = headers.get("Content-Range", "").removeprefix("bytes ").split("-")[0]
    return int(first) if first.isdigit() else -1


def _unpacked_folder(archive: Path) -> Path:
    suffix = max((suffix for suffix in ARCHIVES if archive.name.endswith(suffix)), key=len)
    return archive.with_name(archive.name.removesuffix(suffix))


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack into ``folder``, all of it or nothing; a member that leaves it, or is a link, is refused.

    Raises:
        DataError: the archive is damaged (it is removed then, so that it is fetched anew) or unsafe.
    """
    partial = folder.with_name(folder.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        for name, size, stream in _members(archive):
            if size > shutil.disk_usage(partial).free:
                raise DataError(f"{archive}: unpacking needs {size} bytes more than the disk has free")
            target = partial.joinpath(*_safe_parts(archive, name))
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as copy:
                shutil.copyfileobj(stream, copy, CHUNK)
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        EOFError,
        ValueError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        archive.unlink()
        cause = " ".join(str(error).split())
        raise DataError(
            f"{archive}: the archive is damaged ({cause}) and was removed; fetch it again"
        ) from error
    else:
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _members(archive: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Names, sizes and content of an archive's regular files."""
    if archive.name.endswith(".zip"):
        with zipfile.ZipFile(archive) as zipped:
            for info in zipped.infolist():
                if stat.S_ISLNK(info.external_attr >> 16):
                    raise DataError(
                        f"{archive}: unsafe archive, '{info.filename}' is a link; nothing was unpacked"
                    )
                if not info.is_dir():
                    with zipped.open(info) as stream:
                        yield info.filename, info.file_size, stream
        return
    with tarfile.open(archive) as tarred:
        for member in tarred:
            if not (member.isfile() or member.isdir()):
                raise DataError(
                    f"{archive}: unsafe archive, '{member.name}' is a link or a device; nothing was unpacked"
                )
            content = tarred.extractfile(member)
            if content is not None:
                with content:
                    yield member.name, member.size, content


def _safe_parts(archive: Path, name: str) -> tuple[str, ...]:
    path = PurePosixPath(name.replace("\\", "/"))
    parts = tuple(part for part in path.parts if part != ".")
    if path.is_absolute() or not parts or any(part == ".." or ":" in part or "\0" in part for part in parts):
        raise DataError(
            f"{archive}: unsafe archive, '{name}' would be written elsewhere; nothing was unpacked"
        )
    return parts


def _read_record(path: Path) -> dict[str, dict[str, str]]:
    if not path.exists():
        return {}
    try:
        files: dict[str, dict[str, str]] = json.loads(path.read_text(encoding="utf-8"))["files"]
        if all(isinstance(part, str) for file in files.values() for part in file.values()):
            return files
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise DataError(f"{path}: not a record of fetched files; delete it to trust the next download")


def _write_record(path: Path, entry: PublicSet, files: dict[str, dict[str, str]]) -> None:
    content = {
        "set": entry.name,
        "licence": entry.licence,
        "citation": entry.citation,
        "home": entry.home,
        "files": files,
    }
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)


@contextmanager
def _quiet_pooch() -> Iterator[None]:
    """Keep from pooch's log what the progress callback shows already."""
    import pooch

    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
