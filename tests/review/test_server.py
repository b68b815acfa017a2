"""The review page's addresses: who gets an answer, what is stored, what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from leukokit.batch.decisions import NOT_A_LEUKOCYTE, verdicts_of
from leukokit.review.server import ReviewServer
from leukokit.review.session import ReviewSession

TOKEN, PORT = "secret-token", 8123
HOST = f"http://127.0.0.1:{PORT}"
CHANGE = {"x-leukokit": "1", "origin": HOST}


@pytest.fixture
def session(results: Path) -> Iterator[ReviewSession]:
    session = ReviewSession(results)
    yield session
    session.close()


@pytest.fixture
def stranger(session: ReviewSession) -> TestClient:
    return TestClient(ReviewServer(session, TOKEN, PORT).app, base_url=HOST, follow_redirects=False)


@pytest.fixture
def page(stranger: TestClient) -> TestClient:
    answer = stranger.get("/", params={"token": TOKEN})
    assert answer.status_code == 303
    assert answer.headers["location"] == "/"
    assert "HttpOnly" in answer.headers["set-cookie"]
    assert "SameSite=strict" in answer.headers["set-cookie"]
    return stranger


def test_nothing_is_answered_without_the_token(stranger: TestClient) -> None:
    for path in ("/", "/review.js", "/api/batch", "/api/crop/0", "/api/field/0"):
        assert stranger.get(path).status_code == 403
    assert stranger.get("/", params={"token": "guess"}).status_code == 403
    assert stranger.post("/api/undo", json={"reviewer": "Eve"}, headers=CHANGE).status_code == 403


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", f"evil.example:{PORT}"])
def test_another_host_name_is_refused(page: TestClient, host: str) -> None:
    """What stops a site whose name is made to point to this machine."""
    assert page.get("/", headers={"host": host}).status_code == 421


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-leukokit": "1"},
        {"origin": HOST},
        {"x-leukokit": "1", "origin": "http://evil.example"},
        {"x-leukokit": "1", "origin": "null"},
    ],
)
def test_only_the_page_itself_may_change_something(
    page: TestClient, session: ReviewSession, headers: dict[str, str]
) -> None:
    asked = {"cells": [0], "label": "monocyte", "reviewer": "Eve"}
    assert page.post("/api/decide", json=asked, headers=headers).status_code == 403
    assert session.log.history() == []


def test_files_outside_the_page_are_not_served(page: TestClient) -> None:
    for path in ("/server.py", "/../server.py", "/%2e%2e/server.py", "/..%2fserver.py", "/x.js"):
        assert page.get(path).status_code == 404


def test_every_answer_forbids_foreign_content(page: TestClient) -> None:
    for path in ("/", "/review.css", "/review.js", "/api/batch", "/api/crop/0"):
        answer = page.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_decision_is_on_disk_when_it_is_answered(page: TestClient, results: Path) -> None:
    asked = {"cells": [0, 1], "label": "monocyte", "reviewer": "Ann"}
    answer = page.post("/api/decide", json=asked, headers=CHANGE).json()
    assert answer["verdicts"] == [[0, "monocyte", "Ann"], [1, "monocyte", "Ann"]]
    assert [verdict.label for verdict in verdicts_of(results).values()] == ["monocyte", "monocyte"]
    undone = page.post("/api/undo", json={"reviewer": "Ann"}, headers=CHANGE).json()
    assert undone["verdicts"] == [[0, None, None], [1, None, None]]
    assert undone["reviewed"] == 0


def test_the_differential_follows_decisions(page: TestClient, session: ReviewSession) -> None:
    before = page.get("/api/state").json()["differential"]
    place = next(n for n, cell in enumerate(session.batch.cells) if cell.label == "neutrophil")
    asked = {"cells": [place], "label": NOT_A_LEUKOCYTE, "reviewer": "Ann"}
    after = page.post("/api/decide", json=asked, headers=CHANGE).json()["differential"]
    assert after["n"] == before["n"] - 1
    shares = {share["label"]: share["count"] for share in before["shares"]}
    assert {share["label"]: share["count"] for share in after["shares"]} == {
        **shares,
        "neutrophil": shares["neutrophil"] - 1,
    }


def test_pictures_are_jpegs_of_existing_cells_and_fields(page: TestClient, session: ReviewSession) -> None:
    for path in ("/api/crop/0", "/api/field/1"):
        answer = page.get(path)
        assert answer.headers["content-type"] == "image/jpeg"
        assert answer.content.startswith(b"\xff\xd8")
    assert page.get(f"/api/crop/{len(session.batch.cells)}").status_code == 404
    assert page.get("/api/field/2").status_code == 404


def test_an_image_that_is_gone_costs_its_pictures_only(
    page: TestClient, session: ReviewSession, tmp_path: Path
) -> None:
    for name, field in session.batch.fields.items():
        object.__setattr__(field, "path", tmp_path / "gone" / name)
    answer = page.get("/api/crop/0")
    assert (answer.status_code, "no such file" in answer.text) == (404, True)
    assert page.get("/api/batch").status_code == 200


@pytest.mark.parametrize(
    "asked",
    [
        {"cells": "0", "label": "monocyte", "reviewer": "Ann"},
        {"cells": [99999], "label": "monocyte", "reviewer": "Ann"},
        {"cells": [-1], "label": "monocyte", "reviewer": "Ann"},
        {"cells": [0], "label": "", "reviewer": "Ann"},
        {"cells": [0], "label": "monocyte", "reviewer": " "},
        {"cells": [0], "label": "a\u202eb", "reviewer": "Ann"},
        {"cells": [0], "label": 3, "reviewer": "Ann"},
        [],
    ],
)
def test_a_wrong_decision_is_one_line_and_stores_nothing(
    page: TestClient, session: ReviewSession, asked: object
) -> None:
    answer = page.post("/api/decide", json=asked, headers=CHANGE)
    assert answer.status_code == 400
    assert "\n" not in answer.json()["error"]
    assert session.log.history() == []


def test_text_that_is_no_json_is_refused(page: TestClient) -> None:
    assert page.post("/api/decide", content=b"{", headers=CHANGE).status_code == 400


def test_the_page_writes_tables_summed_up_as_before(page: TestClient, results: Path) -> None:
    page.post("/api/decide", json={"cells": [0], "label": "blast", "reviewer": "Ann"}, headers=CHANGE)
    answer = page.post("/api/finish", json={}, headers=CHANGE).json()
    assert {"corrections.csv", "corrections.jsonl", "cells.csv", "report.html"} <= set(answer["files"])
    lines = (results / "differential.csv").read_text(encoding="utf-8").splitlines()
    # The batch of the fixture was grouped by folder.
    assert any(line.startswith("group,slide-1,blast,1,") for line in lines)
    assert "a person gave them (Ann 1)" in (results / "report.html").read_text(encoding="utf-8")
