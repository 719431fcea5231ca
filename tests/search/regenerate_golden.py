"""Write golden/*.json anew: `python tests/search/regenerate_golden.py`. Read the diff before committing it."""

from __future__ import annotations

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
WIDTHS = (1, 8)


def toy_world() -> Any:
    """The module conftest.py, loaded by path: tests are no package."""
    spec = spec_from_file_location("search_toy_world", HERE / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """One file per scenario, one line per node."""
    toy = toy_world()
    for name in toy.GOLDEN:
        runs = {str(width): toy.golden_run(name, width) for width in WIDTHS}
        lines = []
        for width, run in runs.items():
            nodes = ",\n".join(f"   {json.dumps(row)}" for row in run["nodes"])
            head = f' "{width}": {{\n  "best": {run["best"]},\n  "asks": {json.dumps(run["asks"])},\n'
            lines.append(f'{head}  "nodes": [\n{nodes}\n  ]\n }}')
        (HERE / "golden" / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
