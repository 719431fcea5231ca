"""The packages in pyproject.toml, the folders on disk and the links agree; the wheel would miss what is not listed."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOUSE = ("replay", "search", "rewards", "storage", "cli", "examples")


def setuptools_table() -> dict[str, object]:
    table: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    return table


def test_every_package_on_disk_is_listed() -> None:
    on_disk = {"ttc_replay"}
    for folder in HOUSE:
        for init in (ROOT / folder).rglob("__init__.py"):
            on_disk.add("ttc_replay." + ".".join(init.parent.relative_to(ROOT).parts))
    assert set(setuptools_table()["packages"]) == on_disk  # type: ignore[call-overload]


def test_every_folder_is_mapped_and_linked() -> None:
    assert setuptools_table()["package-dir"] == {f"ttc_replay.{folder}": folder for folder in HOUSE}
    for folder in HOUSE:
        link = ROOT / "ttc_replay" / folder
        assert link.is_symlink()
        assert link.resolve() == (ROOT / folder).resolve()


def test_package_data_exists() -> None:
    data: dict[str, list[str]] = setuptools_table()["package-data"]  # type: ignore[assignment]
    for package, patterns in data.items():
        folder = ROOT / "ttc_replay" / "/".join(package.split(".")[1:])
        for pattern in patterns:
            assert list(folder.glob(pattern)), f"{package}: nothing matches {pattern}"
