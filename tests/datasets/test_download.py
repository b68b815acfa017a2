"""Fetching, against a real HTTP server on this machine that can be told to misbehave."""

import hashlib
import io
import json
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from leukokit.datasets.catalogue import PublicSet, SourceFile
from leukokit.datasets.download import fetch
from leukokit.errors import DataError


class Site(ThreadingHTTPServer):
    """Serves ``files``; cuts the next ``cuts`` answers halfway; remembers (path, Range, status)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files: dict[str, bytes] = {}
        self.cuts = 0
        self.ranges = True
        self.fail_with = 0
        self.asked: list[tuple[str, str | None, int]] = []

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class Answer(BaseHTTPRequestHandler):
    server: Site

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        content = self.server.files.get(self.path[1:])
        status, start = (404 if content is None else 200), 0
        if self.server.fail_with:
            status = self.server.fail_with
            self.server.fail_with = 0
        version = f'"{hashlib.md5(content or b"").hexdigest()}"'
        asked = self.headers.get("Range")
        if (
            status == 200
            and asked
            and self.server.ranges
            and self.headers.get("If-Range", version) == version
        ):
            status, start = 206, int(asked.removeprefix("bytes=").rstrip("-"))
        self.server.asked.append((self.path[1:], asked, status))
        self.send_response(status)
        if status not in (200, 206):
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        assert content is not None
        body = content[start:]
        self.send_header("ETag", version)
        self.send_header("Content-Length", str(len(body)))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.server.cuts:
            self.server.cuts -= 1
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.close_connection = True
            return
        self.wfile.write(body)


@pytest.fixture
def site() -> Iterator[Site]:
    server = Site()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def zipped(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def entry_for(site: Site, name: str = "set.zip", sha256: str | None = None) -> PublicSet:
    source = SourceFile(url=site.url(name), sha256=sha256)
    return PublicSet(name="smears", licence="CC0", home="http://home", citation="us", files=(source,))


SMEARS = {"top/images/a.jpg": bytes(range(256)) * 4000, "top/labels/a.txt": b"0 .5 .5 .1 .1\n"}


def resumed_at(site: Site) -> int:
    return int((site.asked[-1][1] or "").removeprefix("bytes=").rstrip("-"))


def test_a_cut_download_goes_on_where_it_stopped(site: Site, tmp_path: Path) -> None:
    content = site.files["set.zip"] = zipped(SMEARS)
    site.cuts = 1
    told = []
    (file,) = fetch(
        entry_for(site, sha256=hashlib.sha256(content).hexdigest()),
        tmp_path,
        progress=lambda name, done, total: told.append((name, done, total)),
    )
    assert [status for *_, status in site.asked] == [200, 206]
    assert resumed_at(site) > 0.45 * len(content)
    assert file.path.read_bytes() == content and file.known_before
    assert file.unpacked is not None
    assert {
        p.relative_to(file.unpacked).as_posix(): p.read_bytes() for p in file.unpacked.rglob("*.*")
    } == SMEARS
    assert told[-1] == ("set.zip", len(content), len(content))
    assert sorted(p.name for p in (tmp_path / "smears").iterdir()) == ["fetched.json", "set", "set.zip"]


def test_a_later_run_goes_on_where_the_last_one_stopped(site: Site, tmp_path: Path) -> None:
    content = site.files["set.zip"] = zipped(SMEARS)
    site.cuts = 1
    with pytest.raises(DataError, match=r"broke off 1 times.*run the same command again"):
        fetch(entry_for(site), tmp_path, attempts=1)
    assert not (tmp_path / "smears/set.zip").exists() and not (tmp_path / "smears/set").exists()
    (file,) = fetch(entry_for(site), tmp_path, attempts=1)
    assert site.asked[-1][2] == 206 and resumed_at(site) > 0.45 * len(content)
    assert file.path.read_bytes() == content


def test_a_server_without_ranges_is_asked_for_everything_again(site: Site, tmp_path: Path) -> None:
    content = site.files["set.zip"] = zipped(SMEARS)
    site.cuts, site.ranges = 1, False
    (file,) = fetch(entry_for(site), tmp_path)
    assert [status for *_, status in site.asked] == [200, 200]
    assert file.path.read_bytes() == content


def test_two_versions_of_a_file_are_never_joined(site: Site, tmp_path: Path) -> None:
    site.files["set.zip"] = zipped(SMEARS)
    site.cuts = 1
    with pytest.raises(DataError):
        fetch(entry_for(site), tmp_path, attempts=1)
    newer = site.files["set.zip"] = zipped({"other.txt": b"x" * 2_000_000})
    (file,) = fetch(entry_for(site), tmp_path)
    assert file.path.read_bytes() == newer and site.asked[-1][2] == 200


def test_a_passing_fault_is_tried_again(site: Site, tmp_path: Path) -> None:
    site.files["set.zip"] = zipped(SMEARS)
    site.fail_with = 503
    fetch(entry_for(site), tmp_path)
    assert [status for *_, status in site.asked] == [503, 200]


def test_a_wrong_hash_leaves_nothing(site: Site, tmp_path: Path) -> None:
    site.files["set.zip"] = zipped(SMEARS)
    with pytest.raises(DataError, match="SHA-256 is not the catalogue's") as raised:
        fetch(entry_for(site, sha256="0" * 64), tmp_path)
    assert "\n" not in str(raised.value)
    assert list((tmp_path / "smears").iterdir()) == []


def test_a_first_hash_is_recorded_and_held_to(site: Site, tmp_path: Path) -> None:
    content = site.files["set.zip"] = zipped(SMEARS)
    (first,) = fetch(entry_for(site), tmp_path)
    assert not first.known_before and first.sha256 == hashlib.sha256(content).hexdigest()
    record = json.loads((tmp_path / "smears/fetched.json").read_text())
    assert record["files"]["set.zip"]["sha256"] == first.sha256 and record["licence"] == "CC0"

    (again,) = fetch(entry_for(site), tmp_path)
    assert again.known_before and len(site.asked) == 1

    first.path.unlink()
    site.files["set.zip"] = zipped({"changed": b"1"})
    with pytest.raises(DataError, match="SHA-256 is not the one recorded in"):
        fetch(entry_for(site), tmp_path)
    assert not first.path.exists()


def test_a_file_damaged_on_disk_is_fetched_again(site: Site, tmp_path: Path) -> None:
    content = site.files["set.zip"] = zipped(SMEARS)
    (file,) = fetch(entry_for(site), tmp_path)
    file.path.write_bytes(content[:100])
    (again,) = fetch(entry_for(site), tmp_path)
    assert again.path.read_bytes() == content and len(site.asked) == 2


def test_a_missing_file_is_said_at_once(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="HTTP 404"):
        fetch(entry_for(site), tmp_path)
    assert len(site.asked) == 1
    assert list((tmp_path / "smears").iterdir()) == []


def test_no_server_at_all_is_one_line(tmp_path: Path) -> None:
    source = SourceFile(url="http://127.0.0.1:9/set.zip")
    with pytest.raises(DataError, match="check the connection"):
        fetch(PublicSet(name="smears", licence="x", home="x", files=(source,)), tmp_path, attempts=1)


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "..\\evil", "C:/evil"])
def test_an_archive_that_leaves_its_folder_is_refused(site: Site, tmp_path: Path, name: Any) -> None:
    site.files["set.zip"] = zipped({"fine.txt": b"1", name: b"evil"})
    with pytest.raises(DataError, match="unsafe archive"):
        fetch(entry_for(site), tmp_path / "out")
    assert not [path for path in tmp_path.rglob("*") if "evil" in path.name or path.name == "fine.txt"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_a_link_in_an_archive_is_refused(site: Site, tmp_path: Path, kind: Any) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        member = tarfile.TarInfo("inside")
        member.type, member.linkname = kind, "../../outside"
        archive.addfile(member)
    site.files["set.tar.gz"] = stream.getvalue()
    with pytest.raises(DataError, match="'inside' is a link or a device"):
        fetch(entry_for(site, "set.tar.gz"), tmp_path)
    assert not (tmp_path / "smears/set").exists()


def test_a_link_in_a_zip_is_refused(site: Site, tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        info = zipfile.ZipInfo("inside")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "../../outside")
    site.files["set.zip"] = stream.getvalue()
    with pytest.raises(DataError, match="'inside' is a link"):
        fetch(entry_for(site), tmp_path)
    assert not (tmp_path / "smears/set").exists()


def test_a_tar_is_unpacked(site: Site, tmp_path: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:xz") as archive:
        member = tarfile.TarInfo("./top/a.txt")
        member.size = 5
        archive.addfile(member, io.BytesIO(b"smear"))
    site.files["set.tar.xz"] = stream.getvalue()
    (file,) = fetch(entry_for(site, "set.tar.xz"), tmp_path)
    assert file.unpacked == tmp_path / "smears/set"
    assert (file.unpacked / "top/a.txt").read_bytes() == b"smear"


@pytest.mark.parametrize("name", ["set.zip", "set.tar.gz"])
def test_a_damaged_archive_is_removed(site: Site, tmp_path: Path, name: Any) -> None:
    site.files[name] = b"no archive at all"
    with pytest.raises(DataError, match=r"damaged.*fetch it again") as raised:
        fetch(entry_for(site, name), tmp_path)
    assert "\n" not in str(raised.value)
    assert list((tmp_path / "smears").iterdir()) == []


def test_what_stands_in_the_way_is_not_overwritten(site: Site, tmp_path: Path) -> None:
    site.files["set.zip"] = zipped(SMEARS)
    own = tmp_path / "smears/set/notes.txt"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    with pytest.raises(DataError, match="move it away"):
        fetch(entry_for(site), tmp_path)
    assert own.read_text() == "mine"


def test_a_set_without_a_download_says_where_to_go(tmp_path: Path) -> None:
    by_hand = PublicSet(name="forms", licence="x", home="https://home", access="a form has to be filled in")
    with pytest.raises(DataError, match=r"forms has no direct download: a form.*; visit https://home"):
        fetch(by_hand, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_damaged_record_is_said(site: Site, tmp_path: Path) -> None:
    (tmp_path / "smears").mkdir()
    (tmp_path / "smears/fetched.json").write_text("[]")
    with pytest.raises(DataError, match="not a record"):
        fetch(entry_for(site), tmp_path)
