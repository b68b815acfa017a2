"""The log of decisions: append-only, undone step by step, shared by several reviewers."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leukokit.batch.decisions import NAME, CellKey, DecisionLog, verdicts_of

A, B, C = (CellKey("slide-1/a.png", number) for number in range(3))


@pytest.fixture
def log(tmp_path: Path) -> DecisionLog:
    return DecisionLog(tmp_path, "abc")


def test_a_decision_is_in_force_and_in_the_log(tmp_path: Path, log: DecisionLog) -> None:
    told = log.decide([(A, "monocyte"), (B, "")], "basophil", "Ann")
    assert {key: verdict.label for key, verdict in told.items() if verdict} == {A: "basophil", B: "basophil"}
    assert verdicts_of(tmp_path) == log.current() == told
    first, second = log.history()
    assert (first.key, first.machine, first.before, first.label) == (A, "monocyte", None, "basophil")
    assert (second.step, second.reviewer, second.weights) == (first.step, "Ann", "abc")


def test_a_later_decision_replaces_an_earlier_one_and_both_stay(log: DecisionLog) -> None:
    log.decide([(A, "monocyte")], "basophil", "Ann")
    log.decide([(A, "monocyte")], "eosinophil", "Ben")
    assert log.current()[A].label == "eosinophil"
    assert [(d.before, d.label) for d in log.history()] == [(None, "basophil"), ("basophil", "eosinophil")]


def test_none_takes_a_decision_back(log: DecisionLog) -> None:
    log.decide([(A, "monocyte")], "basophil", "Ann")
    assert log.decide([(A, "monocyte")], None, "Ann") == {A: None}
    assert log.current() == {}


def test_undo_goes_back_step_by_step_through_the_same_cell(log: DecisionLog) -> None:
    for label in ("basophil", "eosinophil", "lymphocyte"):
        log.decide([(A, ""), (B, "")], label, "Ann")
    labels = []
    while undone := log.undo("Ann"):
        labels.append({key: verdict and verdict.label for key, verdict in undone.items()})
    assert labels == [
        {A: "eosinophil", B: "eosinophil"},
        {A: "basophil", B: "basophil"},
        {A: None, B: None},
    ]
    assert log.current() == {}


def test_undo_leaves_what_another_reviewer_decided_since(log: DecisionLog) -> None:
    log.decide([(A, ""), (B, "")], "basophil", "Ann")
    log.decide([(A, "")], "monocyte", "Ben")
    assert set(log.undo("Ann")) == {B}
    assert log.current()[A].label == "monocyte"
    assert log.undo("Ann") == {}


def test_the_file_refuses_to_forget(tmp_path: Path, log: DecisionLog) -> None:
    log.decide([(A, "")], "basophil", "Ann")
    with sqlite3.connect(tmp_path / NAME) as base:
        for statement in ("DELETE FROM decisions", "UPDATE decisions SET label = 'monocyte'"):
            with pytest.raises(sqlite3.DatabaseError, match="never"):
                base.execute(statement)


def test_a_batch_nobody_reviewed_has_no_verdicts_and_gets_no_file(tmp_path: Path) -> None:
    assert verdicts_of(tmp_path) == {}
    assert not (tmp_path / NAME).exists()


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.tuples(st.sampled_from(["Ann", "Ben"]), st.sets(st.sampled_from([A, B, C]), min_size=1))
        | st.tuples(st.sampled_from(["Ann", "Ben"]), st.none()),
        max_size=12,
    )
)
def test_undo_is_the_inverse_of_deciding(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, set[CellKey] | None]]
) -> None:
    """Against a plain model: per cell a stack of labels; a reviewer undoes only what lies on top."""
    log = DecisionLog(tmp_path_factory.mktemp("log"))
    stacks: dict[CellKey, list[tuple[int, str, str]]] = {A: [], B: [], C: []}
    for number, (reviewer, cells) in enumerate(steps):
        if cells is not None:
            log.decide([(key, "") for key in sorted(cells)], f"class {number}", reviewer)
            for key in cells:
                stacks[key].append((number, reviewer, f"class {number}"))
        else:
            log.undo(reviewer)
            tops = [stack[-1][0] for stack in stacks.values() if stack and stack[-1][1] == reviewer]
            for stack in stacks.values():
                if tops and stack and stack[-1][0] == max(tops):
                    stack.pop()
        expected = {key: stack[-1][2] for key, stack in stacks.items() if stack}
        assert {key: verdict.label for key, verdict in log.current().items()} == expected
    log.close()
