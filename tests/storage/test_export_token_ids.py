"""Rows with the very token ids that were seen and sampled, and masks of what to learn."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ttc_replay.storage.errors import UsageError
from ttc_replay.storage.export import export
from ttc_replay.storage.exporters.base import AllFiltered
from ttc_replay.storage.exporters.options import ExportOptions
from ttc_replay.storage.exporters.token_ids import context_ids
from ttc_replay.storage.records import Step, TokenTrace

ARCHIVE = runpy.run_path(str(Path(__file__).parent / "golden_export" / "export_archive.py"))
SAY, NUMBERED, STEP = ARCHIVE["say"], ARCHIVE["numbered"], ARCHIVE["step"]
SECRET = "sk-proj-" + "a1B2" * 12


def sampled(*traces: TokenTrace | None, texts: tuple[str, ...] = ("One.", "Two.", "Three.")) -> tuple[Step, ...]:
    """Steps that a local model said; each is answered."""
    steps = NUMBERED([(SAY(text), (f"And after {text}",)) for text in texts])
    return tuple(replace(step, tokens=trace) for step, trace in zip(steps, traces, strict=True))


WHOLE = (
    TokenTrace((20, 21), (-0.1, -0.2), prompt=(1, 2, 3)),
    TokenTrace((22,), (-0.3,), prompt=(4, 5), shared=5),
    TokenTrace((23, 24), (-0.4, -0.5), prompt=(6,), shared=8),
)
REWRITTEN = (*WHOLE[:2], TokenTrace((23, 24), (-0.4, -0.5), prompt=(9, 6), shared=7))


def archive_of(searched: tuple[Step, ...], grow: Callable[[Any], None] = lambda tree: None) -> Any:
    archive = ARCHIVE["PlainArchive"]()
    record = ARCHIVE["recorded"]("talk", NUMBERED([(SAY("No."), ("Why?",)), (SAY("Because."), ())]), tools=())
    found = ARCHIVE["counterfactual"](record, 0, searched)
    archive.add(record, found)
    grow(archive.grow(record, found))
    return archive


def exported(archive: Any, out: Path, form: str = "trl-sft", **changed: Any) -> tuple[dict[str, Any], list[Any]]:
    options = ExportOptions(format=form, out=out, runs=(ARCHIVE["RUN"],), token_ids=True)
    report = export(archive, replace(options, **changed))
    return report, [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]


def test_the_context_of_a_step_goes_back_to_the_last_one_that_was_kept_whole() -> None:
    steps = sampled(*WHOLE)
    assert context_ids(steps, 0) == [1, 2, 3]
    assert context_ids(steps, 1) == [1, 2, 3, 20, 21, 4, 5]
    assert context_ids(steps, 2) == [1, 2, 3, 20, 21, 4, 5, 22, 6]
    assert context_ids(sampled(None, None, replace(WHOLE[2], shared=0)), 2) == [6]


def test_a_continuation_is_one_sequence_with_what_came_back_masked(tmp_path: Path) -> None:
    report, (row,) = exported(archive_of(sampled(*WHOLE)), tmp_path / "out")
    assert row["input_ids"] == [1, 2, 3, 20, 21, 4, 5, 22, 6, 23, 24]
    assert row["completion_mask"] == [0, 0, 0, 1, 1, 0, 0, 1, 0, 1, 1]
    assert list(row) == ["prompt", "completion", "tools", "input_ids", "completion_mask"]
    assert report["dropped"] == {}
    (lineage,) = [json.loads(line) for line in (tmp_path / "out" / "train.meta.jsonl").read_text().splitlines()]
    assert len(lineage["nodes"]) == 3


def test_a_step_is_its_context_and_its_tokens(tmp_path: Path) -> None:
    _, rows = exported(archive_of(sampled(*REWRITTEN)), tmp_path / "out", unit="step")
    pairs = [(row["input_ids"], sum(row["completion_mask"])) for row in rows]
    assert pairs[1] == ([1, 2, 3, 20, 21, 4, 5, 22], 1)
    assert pairs[2] == ([1, 2, 3, 20, 21, 4, 5, 9, 6, 23, 24], 2)


@pytest.mark.parametrize(
    ("searched", "reason"),
    [
        (sampled(*REWRITTEN), "context_rewritten"),
        (sampled(WHOLE[0], None, WHOLE[2]), "no_token_ids"),
        (sampled(*(replace(trace, prompt=None) for trace in WHOLE)), "no_token_ids"),
        (sampled(replace(WHOLE[0], shared=1), *WHOLE[1:]), "no_token_ids"),
        (sampled(*WHOLE, texts=("One.", f"The key is {SECRET}.", "Three.")), "secret_in_token_ids"),
    ],
)
def test_rows_whose_ids_are_not_to_be_had_are_dropped_and_counted(
    tmp_path: Path, searched: tuple[Step, ...], reason: str
) -> None:
    with pytest.raises(AllFiltered) as filtered:
        exported(archive_of(searched), tmp_path / "out")
    assert filtered.value.dropped == {reason: 1}
    assert not (tmp_path / "out").exists()


def test_secrets_in_ids_are_kept_where_nothing_is_to_be_masked(tmp_path: Path) -> None:
    searched = sampled(*WHOLE, texts=("One.", f"The key is {SECRET}.", "Three."))
    _, rows = exported(archive_of(searched), tmp_path / "out", redact=False)
    assert len(rows) == 1


def test_pairs_of_sampled_siblings_have_ids_and_the_recorded_one_has_none(tmp_path: Path) -> None:
    other = replace(STEP(0, SAY("Nothing."), "?"), tokens=TokenTrace((30, 31, 32), (-1.0,) * 3, prompt=(1, 2, 3)))
    archive = archive_of(sampled(*WHOLE), lambda tree: tree.put(0, other, value=0.0, visits=3))
    report, (row,) = exported(archive, tmp_path / "out", "trl-dpo")
    assert (row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]) == ([1, 2, 3], [20, 21], [30, 31, 32])
    assert row["rejected"][0]["content"] == "Nothing."
    assert report["dropped"]["no_token_ids"] == 1


def test_without_the_option_rows_are_as_ever_and_the_ids_make_no_row_another(tmp_path: Path) -> None:
    plain = exported(archive_of(sampled(*WHOLE)), tmp_path / "plain", token_ids=False)[1]
    assert [list(row) for row in plain] == [["prompt", "completion", "tools"]]
    manifest = json.loads((tmp_path / "plain" / "manifest.json").read_text())
    assert "token_ids" not in manifest["options"]
    twice = archive_of(sampled(*WHOLE))
    again = ARCHIVE["recorded"]("talk", NUMBERED([(SAY("Never."), ("Why?",)), (SAY("Well."), ())]), tools=())
    record = replace(again, id="rec-2")
    traces = [replace(trace, ids=tuple(token + 100 for token in trace.ids)) for trace in WHOLE]
    found = replace(ARCHIVE["counterfactual"](record, 0, sampled(*traces)), id="cf-2")
    twice.add(record, found)
    twice.grow(record, found)
    report, rows = exported(twice, tmp_path / "twice")
    assert (len(rows), report["dropped"]) == (1, {"duplicate": 1})


def test_the_card_declares_integers(tmp_path: Path) -> None:
    exported(archive_of(sampled(*WHOLE)), tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "  - name: input_ids\n    list: int64\n" in card
    assert "  - name: prompt\n    list: json\n" in card
    datasets: Any = pytest.importorskip("datasets", reason="the dev extra brings it")
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))["train"]
    assert loaded.features["input_ids"].feature.dtype == "int64"
    assert loaded[0]["completion_mask"] == [0, 0, 0, 1, 1, 0, 0, 1, 0, 1, 1]


class NoIds:
    """A format that has no columns for ids."""

    name = "plain"
    columns = ("prompt",)
    units = ("rest",)
    training = None

    def rows(self, selection: Any) -> Any:
        return iter(())


def test_a_format_without_ids_says_so(tmp_path: Path) -> None:
    options = ExportOptions(format="plain", out=tmp_path / "out", runs=(ARCHIVE["RUN"],), token_ids=True)
    with pytest.raises(UsageError, match="no token ids"):
        export(archive_of(sampled(*WHOLE)), options, NoIds())
