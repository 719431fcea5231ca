"""Selection, splits, lineage and the writing of exports."""

from __future__ import annotations

import hashlib
import json
import os
import runpy
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttc_replay.storage.errors import ExporterFailed, NothingToShow, PluginNotFound, TtcError, UnknownId, UsageError
from ttc_replay.storage.export import dump_line, export
from ttc_replay.storage.exporters import base
from ttc_replay.storage.exporters.base import AllFiltered, Dropped, Row, Selection
from ttc_replay.storage.exporters.manifest import lengths
from ttc_replay.storage.exporters.options import ExportOptions
from ttc_replay.storage.exporters.splits import held_out
from ttc_replay.storage.records import Score

GOLDEN = Path(__file__).parent / "golden_export"
ARCHIVE = runpy.run_path(str(GOLDEN / "export_archive.py"))
RUN: str = ARCHIVE["RUN"]
GITHUB_TOKEN = "ghp_" + "Zk3vQ9" * 6


def options(out: Path, form: str = "trl-sft", **changed: Any) -> ExportOptions:
    given_runs = () if changed.get("dataset") else (RUN,)
    return ExportOptions(format=form, out=out, **{"runs": given_runs, **changed})


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().decode("utf-8").split("\n")[:-1]]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# -- the whole ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(ARCHIVE["GOLDEN"]))
def test_golden(tmp_path: Path, name: str) -> None:
    """Regenerate with `python tests/storage/golden_export/export_archive.py`."""
    export(ARCHIVE["build"](), ExportOptions(out=tmp_path / "out", runs=(RUN,), **ARCHIVE["GOLDEN"][name]))
    found = contents(tmp_path / "out")
    found.pop("chat_template.jinja")
    assert found == contents(GOLDEN / name)


@pytest.mark.parametrize("form", ["trl-sft", "trl-dpo"])
def test_the_report_the_files_and_the_lineage_agree(tmp_path: Path, form: str) -> None:
    archive, out = ARCHIVE["build"](), tmp_path / "out"
    report = export(archive, options(out, form, test_fraction=0.4, seed=3))
    assert list(report) == ["v", "format", "files", "dropped", "splits"]
    assert (report["v"], report["format"]) == (1, form)
    manifest = json.loads((out / "manifest.json").read_text())
    header, saved = archive.saved[0]
    for file in report["files"]:
        path = Path(file["path"])
        assert hashlib.sha256(path.read_bytes()).hexdigest() == file["sha256"]
        rows, sidecar = path.read_bytes().split(b"\n")[:-1], lines(path.with_suffix(".meta.jsonl"))
        assert len(rows) == file["rows"] == report["splits"][path.stem] == len(sidecar)
        for number, (row, lineage) in enumerate(zip(rows, sidecar, strict=True)):
            assert lineage["row"] == number
            assert lineage["sha256"] == hashlib.sha256(row).hexdigest()
            kept = [one for one in saved if one["path"] == str(path) and one["row"] == number]
            assert [one["sha256"] for one in kept] == [lineage["sha256"]]
            assert kept[0]["source_line"] == 7
            assert kept[0]["node"] is not None
    assert header["rows"] == sum(report["splits"].values()) == len(saved)
    listed = {entry["path"]: entry["sha256"] for entry in manifest["files"]}
    assert listed == {n: hashlib.sha256(c).hexdigest() for n, c in contents(out).items() if n != "manifest.json"}
    assert manifest["dropped"] == report["dropped"]


def test_every_reason_of_the_selection_is_counted(tmp_path: Path) -> None:
    report = export(ARCHIVE["build"](), options(tmp_path / "out"))
    assert report["dropped"] == {
        "no_counterfactual": 1,
        "trivial": 1,
        "copied": 1,
        "below_min_fidelity": 1,
        "below_min_gain": 1,
        "unknown_gain": 1,
        "missing_trajectory": 1,
        "no_tool_schema": 1,
        "unanswered_call": 1,
        "control_tokens": 1,
    }
    assert report["splits"]["train"] + sum(report["dropped"].values()) == 14


def test_pairs_name_why_a_sibling_is_no_rejected_side(tmp_path: Path) -> None:
    report = export(ARCHIVE["build"](), options(tmp_path / "out", "trl-dpo"))
    for reason in ("few_visits", "imputed", "below_margin"):
        assert report["dropped"][reason] == 1
    assert report["dropped"]["below_min_fidelity"] == 2  # one trajectory and one sibling
    sidecar = lines(tmp_path / "out" / "train.meta.jsonl")
    mine = [row for row in sidecar if row["task_id"] == "shop-1"]
    assert [(row["step"], row["rejected"]["recorded"], row["margin"]) for row in mine] == [
        (1, True, 0.75),
        (1, False, pytest.approx(0.9)),
        (3, False, pytest.approx(0.8)),
    ]
    rows = lines(tmp_path / "out" / "train.jsonl")
    for row in rows:
        assert len(row["chosen"]) == len(row["rejected"]) == 1
        assert row["chosen"][0]["role"] == row["rejected"][0]["role"] == "assistant"
        assert row["chosen"] != row["rejected"]


def test_pairs_that_say_the_opposite_of_an_earlier_pair_are_dropped(tmp_path: Path) -> None:
    archive = ARCHIVE["PlainArchive"]()
    say, numbered = ARCHIVE["say"], ARCHIVE["numbered"]
    for name, bad, good in (("one", "A", "B"), ("two", "B", "A")):
        record = replace(ARCHIVE["recorded"]("t", numbered([(say(bad), ())])), id=f"rec-{name}")
        found = ARCHIVE["counterfactual"](record, 0, numbered([(say(good), ())]))
        archive.add(record, found)
        archive.grow(record, found)
    report = export(archive, options(tmp_path / "out", "trl-dpo"))
    assert (report["splits"]["train"], report["dropped"]) == (1, {"contradicted": 1})


def test_a_recorded_action_that_did_as_well_in_the_search_is_not_rejected(tmp_path: Path) -> None:
    archive = ARCHIVE["PlainArchive"]()
    say, numbered = ARCHIVE["say"], ARCHIVE["numbered"]
    record = ARCHIVE["recorded"]("t", numbered([(say("A"), ())]))
    found = ARCHIVE["counterfactual"](record, 0, numbered([(say("B"), ())]))
    archive.add(record, found)
    tree = archive.grow(record, found)
    tree.nodes[1] = replace(tree.nodes[1], visits=5, value_sum=5.0)
    with pytest.raises(AllFiltered) as caught:
        export(archive, options(tmp_path / "out", "trl-dpo"))
    assert caught.value.dropped == {"not_worse": 1}


SELECTIONS: list[tuple[dict[str, Any], set[str]]] = [
    ({}, {"talk", "shop-1", "shop-2", "shop-3"}),
    ({"min_gain": 0.5}, {"talk", "shop-1"}),
    ({"min_gain": 0.0}, {"talk", "shop-1", "shop-2", "shop-3", "same"}),
    ({"min_fidelity": "recorded"}, {"talk", "shop-1", "shop-2", "shop-3", "taped"}),
    ({"keep_copied": True}, {"talk", "shop-1", "shop-2", "shop-3", "copied"}),
    ({"keep_trivial": True}, {"talk", "shop-1", "shop-2", "shop-3", "trivial"}),
    ({"dataset": "books"}, {"talk", "shop-1", "shop-2", "shop-3"}),
]


@pytest.mark.parametrize(("changed", "tasks"), SELECTIONS)
def test_options_decide_what_is_selected(tmp_path: Path, changed: dict[str, Any], tasks: set[str]) -> None:
    export(ARCHIVE["build"](), options(tmp_path / "out", **changed))
    assert {row["task_id"] for row in lines(tmp_path / "out" / "train.meta.jsonl")} == tasks


def test_per_task_takes_the_best_then_the_different_one(tmp_path: Path) -> None:
    archive = ARCHIVE["PlainArchive"]()
    say, numbered = ARCHIVE["say"], ARCHIVE["numbered"]
    for name, text, best in (("a", "X", 0.9), ("b", "X", 0.8), ("c", "Y", 0.7), ("d", "Z", 0.6)):
        record = replace(ARCHIVE["recorded"]("t", numbered([(say(f"bad {name}"), ())])), id=f"rec-{name}")
        found = ARCHIVE["counterfactual"](record, 0, numbered([(say(text), ())]))
        archive.add(record, found, best=best)
    report = export(archive, options(tmp_path / "out", per_task=2))
    assert [row["trajectory_id"] for row in lines(tmp_path / "out" / "train.meta.jsonl")] == ["cf-a", "cf-c"]
    assert report["dropped"] == {"per_task_cap": 2}
    again = export(archive, options(tmp_path / "all"))
    assert (again["splits"]["train"], again["dropped"]) == (3, {"duplicate": 1})


def test_step_rows_hold_one_message_under_everything_before_it(tmp_path: Path) -> None:
    export(ARCHIVE["build"](), options(tmp_path / "rest"))
    export(ARCHIVE["build"](), options(tmp_path / "step", unit="step"))
    whole = next(row for row in lines(tmp_path / "rest" / "train.jsonl") if "shop-1" in row["prompt"][1]["content"])
    steps = [row for row in lines(tmp_path / "step" / "train.jsonl") if "shop-1" in row["prompt"][1]["content"]]
    talk = whole["prompt"] + whole["completion"]
    assistants = [i for i, m in enumerate(talk) if m["role"] == "assistant" and i >= len(whole["prompt"])]
    expected = [(talk[:i], [talk[i]]) for i in assistants]
    found = sorted(((row["prompt"], row["completion"]) for row in steps), key=lambda pair: len(pair[0]))
    assert found == expected


def test_rows_with_calls_come_first_and_gold_never_comes(tmp_path: Path) -> None:
    for form in ("trl-sft", "trl-dpo"):
        export(ARCHIVE["build"](), options(tmp_path / form, form))
        rows = (tmp_path / form / "train.jsonl").read_text().splitlines()
        calls = ['"tool_calls"' in row for row in rows]
        assert calls == sorted(calls, reverse=True)
        assert True in calls
        assert False in calls
        assert not any(b"GOLD-SECRET" in content for content in contents(tmp_path / form).values())


def test_secrets_are_masked_unless_asked_not_to(tmp_path: Path) -> None:
    say, numbered = ARCHIVE["say"], ARCHIVE["numbered"]
    archive = ARCHIVE["PlainArchive"]()
    record = ARCHIVE["recorded"]("t", numbered([(say("?"), (f"token {GITHUB_TOKEN}",)), (say("no"), ())]))
    call = ARCHIVE["act"](("post", {"line": GITHUB_TOKEN, "account": 1}))
    found = ARCHIVE["counterfactual"](record, 1, numbered([(call, ("ok",)), (say("yes"), ())], 1))
    archive.add(record, found)
    archive.grow(record, found)
    for form in ("trl-sft", "trl-dpo"):
        export(archive, options(tmp_path / form, form))
        assert not any(GITHUB_TOKEN.encode() in content for content in contents(tmp_path / form).values())
        row = (tmp_path / form / "train.jsonl").read_text()
        assert row.count("[SECRET:") == 2
    export(archive, options(tmp_path / "open", redact=False))
    assert GITHUB_TOKEN in (tmp_path / "open" / "train.jsonl").read_text()
    assert "NOT masked" in (tmp_path / "open" / "README.md").read_text()


def test_a_search_from_a_later_step_and_an_action_with_two_outcomes_find_their_nodes(tmp_path: Path) -> None:
    archive = ARCHIVE["PlainArchive"]()
    say, numbered = ARCHIVE["say"], ARCHIVE["numbered"]
    record = ARCHIVE["recorded"]("t", numbered([(say("hello"), ("hm",)), (say("no"), ())]))
    found = ARCHIVE["counterfactual"](record, 1, numbered([(say("try"), ("it works",)), (say("done"), ())], 1))
    archive.add(record, found)
    tree = ARCHIVE["TreeBuilder"](RUN, record.id)
    tree.chain(0, record.steps[1:], value=0.25, spine=True)
    tree.chain(0, numbered([(say("try"), ("it fails",))], 1), value=0.0, visits=3)
    branch = tree.chain(0, found.steps[1:], value=1.0, visits=2)
    archive.trees[RUN, record.id] = tree.nodes
    export(archive, options(tmp_path / "sft"))
    row = lines(tmp_path / "sft" / "train.meta.jsonl")[0]
    assert [node["node"] for node in row["nodes"]] == branch
    assert (row["node"], row["step"], row["steps"]) == (branch[-1], 1, 2)
    report = export(archive, options(tmp_path / "dpo", "trl-dpo"))
    assert report["dropped"] == {"same_action": 1}
    assert [row["rejected"]["node"] for row in lines(tmp_path / "dpo" / "train.meta.jsonl")] == [1]
    archive.trees.clear()
    with pytest.raises(AllFiltered, match="no_tree 1"):
        export(archive, options(tmp_path / "none", "trl-dpo"))


def test_rows_that_differ_in_call_ids_alone_are_duplicates(tmp_path: Path) -> None:
    archive = ARCHIVE["PlainArchive"]()
    say, act, numbered = ARCHIVE["say"], ARCHIVE["act"], ARCHIVE["numbered"]
    for name, argument in (("a", "x"), ("b", "x"), ("c", "y")):
        record = replace(ARCHIVE["recorded"]("t", numbered([(say("bad"), ())])), id=f"rec-{name}")
        call = act(("lookup", {"key": argument, "filters": {"id": "kept"}}), ids=[f"id-{name}"])
        archive.add(record, ARCHIVE["counterfactual"](record, 0, numbered([(call, ("found",)), (say("done"), ())])))
    report = export(archive, options(tmp_path / "out"))
    assert (report["splits"]["train"], report["dropped"]) == (2, {"duplicate": 1})


def test_a_row_is_one_line_for_every_reader() -> None:
    line = dump_line({"a": "\u2028\u2029\x85\n\r\x0b\x0c\x1c \ud800"})
    assert len(line.decode("utf-8").splitlines()) == 1
    assert json.loads(line)["a"] == "\u2028\u2029\x85\n\r\x0b\x0c\x1c ?"
    with pytest.raises(ValueError, match="JSON compliant"):
        dump_line({"a": float("nan")})


# -- errors ------------------------------------------------------------------------------------------------------------


def test_all_filtered_says_why_and_writes_nothing(tmp_path: Path) -> None:
    archive = ARCHIVE["build"]()
    with pytest.raises(NothingToShow) as caught:
        export(archive, options(tmp_path / "out", min_gain=5.0))
    assert caught.value.exit_code == 4
    assert isinstance(caught.value, AllFiltered)
    assert caught.value.dropped["below_min_gain"] == 9
    assert sum(caught.value.dropped.values()) == 14
    assert list(tmp_path.iterdir()) == []
    assert archive.saved == []


def test_an_empty_selection_is_a_report_without_files(tmp_path: Path) -> None:
    archive = ARCHIVE["PlainArchive"](rows={RUN: []})
    report = export(archive, options(tmp_path / "out"))
    assert report == {"v": 1, "format": "trl-sft", "files": [], "dropped": {}, "splits": {"train": 0, "test": 0}}
    assert list(tmp_path.iterdir()) == []


WRONG: list[tuple[dict[str, Any], type[TtcError], str]] = [
    ({"runs": ()}, UsageError, "at least one run"),
    ({"runs": ("nope",)}, UnknownId, "nope"),
    ({"runs": (RUN,), "dataset": "books"}, UsageError, "not both"),
    ({"format": "trl-xyz"}, PluginNotFound, "trl-xyz"),
    ({"unit": "word"}, UsageError, "--unit"),
    ({"format": "trl-dpo", "unit": "rest"}, UsageError, "--unit"),
    ({"min_fidelity": "perfect"}, UsageError, "--min-fidelity"),
    ({"min_gain": float("nan")}, UsageError, "--min-gain"),
    ({"per_task": 0}, UsageError, "--per-task"),
    ({"test_fraction": 1.0}, UsageError, "--test-fraction"),
    ({"margin": -0.1}, UsageError, "margin"),
    ({"min_visits": 0}, UsageError, "visits"),
]


@pytest.mark.parametrize(("changed", "error", "message"), WRONG)
def test_wrong_options(tmp_path: Path, changed: dict[str, Any], error: type[TtcError], message: str) -> None:
    with pytest.raises(error, match=message):
        export(ARCHIVE["build"](), replace(options(tmp_path / "out"), **changed))
    assert list(tmp_path.iterdir()) == []


class Broken:
    """A third-party exporter that raises."""

    name, columns, units, training = "broken", ("text",), ("row",), None

    def rows(self, selection: Selection) -> Iterator[Row | Dropped]:
        raise KeyError("oops")
        yield


class OfTheUser:
    """A third-party exporter with a column of its own."""

    name, columns, units, training = "mine", ("text",), ("row",), None

    def rows(self, selection: Selection) -> Iterator[Row | Dropped]:
        for candidate in selection:
            yield Row({"text": [{"id": candidate.record.id}]}, candidate, candidate.record.id)


class Null(OfTheUser):
    """A third-party exporter that forgets a value."""

    def rows(self, selection: Selection) -> Iterator[Row | Dropped]:
        for candidate in selection:
            yield Row({"text": None}, candidate, candidate.record.id)


def test_exporters_of_users(tmp_path: Path) -> None:
    assert isinstance(OfTheUser(), base.Exporter)
    report = export(ARCHIVE["build"](), options(tmp_path / "out", "mine"), OfTheUser())
    assert report["splits"]["train"] == 7
    assert lines(tmp_path / "out" / "train.jsonl")[0] == {"text": [{"id": "rec-talk"}]}
    for broken in (Broken(), Null()):
        with pytest.raises(ExporterFailed, match=broken.name):
            export(ARCHIVE["build"](), options(tmp_path / "bad", "bad"), broken)
    assert not (tmp_path / "bad").exists()
    assert {"trl-sft", "trl-dpo"} <= set(base.names())


# -- files -------------------------------------------------------------------------------------------------------------


def test_two_exports_are_byte_identical_and_the_second_replaces_the_first(tmp_path: Path) -> None:
    export(ARCHIVE["build"](), options(tmp_path / "one", seed=5, test_fraction=0.3))
    first = contents(tmp_path / "one")
    export(ARCHIVE["build"](), options(tmp_path / "one", "trl-dpo"))
    assert "dpo_config.json" in contents(tmp_path / "one")
    assert "sft_config.json" not in contents(tmp_path / "one")
    export(ARCHIVE["build"](), options(tmp_path / "one", seed=5, test_fraction=0.3))
    assert contents(tmp_path / "one") == first
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_the_folder_is_private_and_may_be_new_deep_or_empty(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    for out in (tmp_path / "a" / "b" / "new", tmp_path / "link"):
        export(ARCHIVE["build"](), options(out))
        assert stat.S_IMODE(out.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()} == {0o600}
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "empty" / "manifest.json").exists()


def test_what_is_not_ours_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.txt").write_text("x")
    (tmp_path / "file").write_text("x")
    (tmp_path / "theirs.jsonl").write_text('{"messages": []}\n')
    export(ARCHIVE["build"](), options(tmp_path / "ours"))
    (tmp_path / "ours" / "model.bin").write_text("x")
    for out in ("theirs", "file", "theirs.jsonl", "ours", "file/below"):
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        with pytest.raises(UsageError):
            export(ARCHIVE["build"](), options(tmp_path / out))
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_bare_file_has_the_rows_of_the_folder(tmp_path: Path) -> None:
    export(ARCHIVE["build"](), options(tmp_path / "folder"))
    for _ in range(2):  # the second export takes the place of the first
        archive = ARCHIVE["build"]()
        report = export(archive, options(tmp_path / "rows.jsonl"))
        assert (tmp_path / "rows.jsonl").read_bytes() == (tmp_path / "folder" / "train.jsonl").read_bytes()
        assert [file["path"] for file in report["files"]] == [str(tmp_path / "rows.jsonl")]
        assert len(archive.saved[0][1]) == report["splits"]["train"]
    assert stat.S_IMODE((tmp_path / "rows.jsonl").stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "rows.jsonl"]
    with pytest.raises(UsageError, match="test split"):
        export(ARCHIVE["build"](), options(tmp_path / "rows.jsonl", test_fraction=0.5))


AGAIN_AND_AGAIN = """
import runpy, sys
from pathlib import Path
from ttc_replay.storage.export import dump_line, export
from ttc_replay.storage.exporters.options import ExportOptions
made = runpy.run_path(sys.argv[1])
archive = made["build"]()
print("ready", flush=True)
while True:
    for form in ("trl-sft", "trl-dpo"):
        export(archive, ExportOptions(format=form, out=Path(sys.argv[2]), runs=(made["RUN"],)))
"""


def test_a_kill_never_leaves_half_an_export(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-c", AGAIN_AND_AGAIN, str(GOLDEN / "export_archive.py"), str(out)]
    for delay_seconds in (0.0, 0.05, 0.11, 0.2):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            time.sleep(delay_seconds)
            os.kill(child.pid, signal.SIGKILL)
        if out.exists():
            manifest = json.loads((out / "manifest.json").read_text())
            for entry in manifest["files"]:
                assert hashlib.sha256((out / entry["path"]).read_bytes()).hexdigest() == entry["sha256"]
    export(ARCHIVE["build"](), options(out))
    assert (out / "sft_config.json").exists()


# -- splits and lengths ------------------------------------------------------------------------------------------------


@given(st.sets(st.text(max_size=6), max_size=40), st.floats(0.0, 0.99), st.integers(0, 2**31))
def test_splits_depend_on_the_task_alone(tasks: set[str], fraction: float, seed: int) -> None:
    held = held_out(tasks, fraction, seed)
    assert held <= tasks
    assert held == held_out(sorted(tasks, reverse=True), fraction, seed)
    assert not tasks or held != tasks
    if fraction == 0.0:
        assert not held
    more = held_out({*tasks, "one more task"}, fraction, seed)
    assert held <= more  # a new task never moves an old one out of the test split


def test_the_split_is_about_as_large_as_asked() -> None:
    tasks = [f"task-{number}" for number in range(2000)]
    assert 340 < len(held_out(tasks, 0.2, 0)) < 460
    assert held_out(tasks, 0.2, 0) != held_out(tasks, 0.2, 1)


def test_all_branches_of_a_task_are_in_one_split(tmp_path: Path) -> None:
    for seed in range(6):
        out = tmp_path / str(seed)
        report = export(ARCHIVE["build"](), options(out, unit="step", test_fraction=0.5, seed=seed))
        tasks = [
            {row["task_id"] for row in lines(out / f"{split}.meta.jsonl")}
            for split, count in report["splits"].items()
            if count
        ]
        assert not set.intersection(*tasks) or len(tasks) == 1


@pytest.mark.parametrize(
    ("sizes", "max_length"), [([], 256), ([1], 256), ([512], 256), ([513], 512), ([99, 5000], 2560)]
)
def test_max_length_cuts_no_row(sizes: list[int], max_length: int) -> None:
    found = lengths([(size, size) for size in sizes])
    assert found["max_length"] == max_length >= found["estimated_tokens"]["max"]
    assert found["characters"]["max"] == max(sizes, default=0)


def test_scores_that_abstain_stay_unknown_in_the_sidecar(tmp_path: Path) -> None:
    archive = ARCHIVE["build"]()
    found = archive.trajectories["cf-shop-1"]
    archive.trajectories["cf-shop-1"] = replace(found, scores={"gold": Score(0.0), "style": Score(error="down")})
    export(archive, options(tmp_path / "out"))
    row = next(row for row in lines(tmp_path / "out" / "train.meta.jsonl") if row["task_id"] == "shop-1")
    assert row["scores"] == {"gold": 0.0, "style": None}
    assert row["node_scores"] == {"guide": 1.0, "style": None}
