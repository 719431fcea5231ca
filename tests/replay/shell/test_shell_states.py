"""Differences to the start: what an overlay's layers say equals what a whole copy says, whatever was done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ttc_replay.replay.environments.shell_layers import CopyBranch, OverlayBranch, open_store
from ttc_replay.replay.environments.shell_sandbox import Limits, Sandbox, Shell
from ttc_replay.replay.environments.shell_tree import Base, Diff, Entry, Found, tree_key

NAMES = st.sampled_from(["plain.txt", "kept", "kept/inner.txt", "link", "new", "new/deep", "kept/new", "/tmp/t"])
COMMANDS = st.one_of(
    st.builds("rm -rf {}".format, NAMES),
    st.builds("mkdir -p {}".format, NAMES),
    st.builds("echo {} > {}".format, st.sampled_from("ab"), NAMES),
    st.builds("mv {} {}".format, NAMES, NAMES),
    st.builds("cp -r {} {}".format, NAMES, NAMES),
    st.builds("chmod {} {}".format, st.sampled_from(["700", "755", "0"]), NAMES),
    st.builds("ln -sfn {} {}".format, NAMES, NAMES),
    st.builds("rm -rf {0}; mkdir -p {0}; echo x > {0}/again".format, NAMES),
)


@given(steps=st.lists(st.lists(COMMANDS, min_size=1, max_size=6), min_size=1, max_size=3))
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
def test_layers_and_copies_tell_the_same_differences(steps: list[list[str]], folder: Path) -> None:
    store, _ = open_store("overlay")
    origin = store.origin(folder, 1000)
    sandbox = Sandbox(store.path, Limits())
    layered, copied = OverlayBranch(store, origin), CopyBranch(store, origin)
    for commands in steps:
        line = " ; ".join(commands)
        said = [branch.run(sandbox, line, Shell(sandbox.mount)).output for branch in (layered, copied)]
        assert said[0] == said[1]
        assert layered.diff == copied.diff, line
    assert not any(path in layered.diff and layered.diff[path] == origin.base.get(path) for path in layered.diff)


def file(digest: str) -> Entry:
    return Entry("f", 0o644, digest)


DIRECTORY = Entry("d", 0o755, "")


def differences(base_folder: Path, before: Diff, *found: Found) -> Diff:
    return Base(str(base_folder), 100).layered(before, iter(found))


def test_an_opaque_folder_hides_what_was_below(folder: Path) -> None:
    before = {"kept/new": file("1"), "other": file("2")}
    opaque = differences(folder, before, Found("kept", DIRECTORY, True), Found("kept/again", file("3")))
    assert opaque == {"kept/inner.txt": None, "kept/again": file("3"), "other": file("2")}
    merged = differences(folder, before, Found("kept", DIRECTORY), Found("kept/again", file("3")))
    assert merged == {**before, "kept/again": file("3")}


def test_a_whiteout_of_what_the_base_never_had_is_no_difference(folder: Path) -> None:
    assert differences(folder, {"new": file("1")}, Found("new", None)) == {}
    assert differences(folder, {"new": DIRECTORY, "new/in": file("1")}, Found("new", file("2"))) == {"new": file("2")}
    gone = differences(folder, {}, Found("kept", None))
    assert gone == {"kept": None, "kept/inner.txt": None}


def test_the_key_tells_kinds_modes_names_and_texts_apart() -> None:
    diffs: list[Diff] = [
        {},
        {"a": None},
        {"a": file("1")},
        {"b": file("1")},
        {"a": file("2")},
        {"a": Entry("f", 0o600, "1")},
    ]
    diffs += [{"a": Entry("l", 0o644, "1")}, {"a": file("1"), "b": None}]
    keys = [tree_key(diff, *more) for diff in diffs for more in ((), ("x",), ("", "x"))]
    assert len(set(keys)) == len(keys)


def test_a_file_that_changed_under_the_same_size_is_another_origin(
    tmp_path: Path, opened: Callable[..., object]
) -> None:
    store, _ = open_store("overlay")
    (tmp_path / "f").write_text("aa")
    first = store.origin(tmp_path, 100)
    assert store.origin(tmp_path, 100) is first
    (tmp_path / "f").write_text("bb")
    assert store.origin(tmp_path, 100).base.key != first.base.key
