"""The real run of the README: recorded gpt-4o airline runs, searched without a model, as a Markdown table.

    python benchmarks/tau_airline.py ../shared/traces/tau-bench [--folder DIR]

Everything goes through the command line, so that the figures are those that a user gets. Needs the extra [tau2].
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

RUNS = (
    ("MCTS from step 0", 64, ["--algorithm", "mcts"]),
    ("MCTS, --from-step auto", 64, ["--algorithm", "mcts", "--from-step", "auto"]),
    ("MCTS, --from-step auto", 256, ["--algorithm", "mcts", "--from-step", "auto"]),
    ("best-of-N, --from-step auto", 256, ["--algorithm", "best-of-n", "--from-step", "auto"]),
    ("beam from step 0", 256, ["--algorithm", "beam"]),
    ("beam, --from-step auto", 256, ["--algorithm", "beam", "--from-step", "auto"]),
)


def ttc(database: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "ttc_replay", "--db", str(database), "--json", "-q", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 4:  # all rows filtered, for example because every counterfactual is a copy
        return {"splits": {"train": 0}}
    if not done.stdout:
        raise SystemExit(done.stderr)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("traces")
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp())
    database = folder / "airline.duckdb"
    ingested = ttc(database, "ingest", arguments.traces, "--dataset", "airline")["totals"]
    print(f"ingested {ingested['trajectories']} runs, {ingested['steps']} steps, {ingested['tool_calls']} tool calls")
    replayed = ttc(database, "replay", "--env", "tau2", "--dataset", "airline")["totals"]
    print(f"replay: {json.dumps(replayed)}\n")
    print("| search | budget | improved | novel | copied | refused | mean best | transitions | SFT rows | seconds |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for number, (label, budget, options) in enumerate(RUNS):
        name = f"airline-{number}"
        common = ["--dataset", "airline", "--env", "tau2", "--policy", "corpus", "--reward", "environment"]
        report = ttc(database, "search", *common, "--budget", str(budget), "--name", name, *options)["totals"]
        out = folder / name
        rows = ttc(database, "export", name, "--format", "trl-sft", "--out", str(out), "--min-fidelity", "recorded")
        tried = report["trajectories"] - report["trivial"]
        print(
            f"| {label} | {budget} | {report['improved']} of {tried} | {report['novel']} | "
            f"{report['improved'] - report['novel']} | {report['gate']['refused']} | {report['mean_best']:.3f} | "
            f"{report['transitions']} | {rows['splits']['train']} | {report['seconds']:.0f} |"
        )


if __name__ == "__main__":
    main()
