"""The speed and memory of ingest, beside other ways into a database: the same file, one run, each way in a process.

    ingest                `ttc_replay.storage.ingest` into a new DuckDB file: detection, strict validation, content ids,
                          secrets, replayability, commit; text uncompressed
    ingest_compressed     the same, text compressed with zstd (the default)
    again                 a second ingest of the same file into that file
    read_json             DuckDB's own reader, unvalidated: messages as JSON, row groups of 8,192, one thread
    read_json_threads     the same with DuckDB's own number of threads
    polars                `polars.scan_ndjson` and Arrow into DuckDB
    executemany           SQLAlchemy Core, one row a line, on the first 4 MB

Prints megabytes (10^6) per CPU second, peak memory, size of the database to that of the log, and ratios; medians over
the rounds, ways interleaved. `--otlp` adds the same runs as OTLP JSON; `--lookup` one trajectory of a million steps.

    python benchmarks/ingest_speed.py [--megabytes 256] [--profile support|coding] [--rounds 3] [--otlp 64] [--lookup]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script: the sibling module is found by package name

from benchmarks.made_logs import write_chat, write_otlp

SMALL_MB = 4
Measured = dict[str, float]


def _ingest(log: Path, database: Path, *, compress: bool) -> None:
    from ttc_replay.storage.database import Database
    from ttc_replay.storage.ingest import ingest

    with Database.open(str(database), compress=compress) as archive:
        report = ingest(archive, [str(log)])
    if report["totals"]["skipped"] or report["totals"]["rejected_files"]:
        raise SystemExit(f"not everything was read: {report['totals']}")


def _attached(database: Path, group: int, threads: int | None = 1) -> Any:
    import duckdb

    connection = duckdb.connect(":memory:")
    if threads is not None:
        connection.execute(f"SET threads = {threads}")
    connection.execute(f"ATTACH '{database}' AS a (ROW_GROUP_SIZE {group})")
    connection.execute("USE a")
    return connection


def read_json(log: Path, database: Path, threads: int | None = 1) -> None:
    """DuckDB's reader."""
    connection = _attached(database, 8192, threads)
    kinds = {"messages": "JSON", "id": "VARCHAR", "task_id": "VARCHAR", "reward": "DOUBLE", "trial": "BIGINT"}
    if "resolved" in log.open(encoding="utf-8").readline()[-200:]:
        kinds = {"messages": "JSON", "resolved": "BOOLEAN", "instance_id": "VARCHAR"}
    columns = ", ".join(f"{name}: '{kind}'" for name, kind in kinds.items())
    source = f"read_json('{log}', format='newline_delimited', columns={{{columns}}}, maximum_object_size=200000000)"
    connection.execute(f"CREATE TABLE t AS SELECT * FROM {source}")
    connection.execute("CHECKPOINT")
    connection.close()


def polars_scan(log: Path, database: Path) -> None:
    """Polars' reader; its own schema inference from the first lines."""
    import polars

    connection = _attached(database, 8192)
    frame = polars.scan_ndjson(log, infer_schema_length=50).collect().to_arrow()
    connection.register("v", frame)
    connection.execute("CREATE TABLE t AS SELECT * FROM v")
    connection.execute("CHECKPOINT")
    connection.close()


def executemany(log: Path, database: Path) -> None:
    """SQLAlchemy's own way, one statement a row."""
    from sqlalchemy import Column, MetaData, Table, Text, create_engine

    engine: Any = create_engine(f"duckdb:///{database}")
    engine.dialect.use_insertmanyvalues_wo_returning = False
    engine.dialect.duckdb_copy_threshold = 0
    metadata = MetaData()
    table = Table("t", metadata, Column("id", Text), Column("messages", Text))
    metadata.create_all(engine)
    messages = Table("m", metadata, Column("id", Text), Column("message", Text))
    metadata.create_all(engine)
    runs, rows = [], []
    with log.open(encoding="utf-8") as file:
        for number, line in enumerate(file):
            record = json.loads(line)
            rows += [{"id": str(number), "message": json.dumps(message)} for message in record.pop("messages")]
            runs.append({"id": str(number), "messages": json.dumps(record)})
    with engine.begin() as connection:
        connection.execute(table.insert(), runs)
        connection.execute(messages.insert(), rows)
    engine.dispose()


WAYS: dict[str, Callable[[Path, Path], None]] = {
    "ingest": lambda log, database: _ingest(log, database, compress=False),
    "ingest_compressed": lambda log, database: _ingest(log, database, compress=True),
    "again": lambda log, database: _ingest(log, database, compress=False),
    "read_json": read_json,
    "read_json_threads": lambda log, database: read_json(log, database, None),
    "polars": polars_scan,
    "executemany": executemany,
}


def one(way: str, log: Path, database: Path) -> None:
    """In a process of its own: CPU seconds, peak memory, size. Libraries are loaded before the clock starts."""
    import duckdb  # noqa: F401
    import polars  # noqa: F401

    import ttc_replay.storage.database
    import ttc_replay.storage.ingest

    assert ttc_replay.storage.database
    start, wall = time.process_time(), time.perf_counter()
    WAYS[way](log, database)
    spent, wall = time.process_time() - start, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"cpu": spent, "wall": wall, "peak_mib": peak, "size": os.path.getsize(database)}))


def measured(way: str, log: Path, database: Path) -> Measured:
    """Run `one` in a new process."""
    command = [sys.executable, __file__, "--one", way, str(log), str(database)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{way} failed:\n{done.stderr[-2000:]}")
    found: Measured = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(log: Path, rounds: int, folder: Path, ways: list[str]) -> dict[str, Any]:
    """Megabytes per CPU second and peak memory of each way, medians, and ratios."""
    small = folder / "small.jsonl"
    with log.open("rb") as file:
        small.write_bytes(b"".join(line for line in file.readlines(SMALL_MB * 10**6)))
    found: dict[str, list[Measured]] = {way: [] for way in ways}
    for number in range(rounds):
        for way in ways:
            database = folder / f"{'ingest' if way == 'again' else way}-{number}.duckdb"
            found[way].append(measured(way, small if way == "executemany" else log, database))
        for path in folder.glob("*.duckdb*"):
            path.unlink()
    sizes = {way: (small if way == "executemany" else log).stat().st_size for way in ways}
    table = {way: _summary(found[way], sizes[way]) for way in ways}
    return {"bytes": log.stat().st_size, "ways": table, "ratios": _ratios(table)}


def _summary(runs: list[Measured], size: int) -> Measured:
    return {
        "mb_per_cpu_second": statistics.median(size / 10**6 / run["cpu"] for run in runs),
        "mb_per_second": statistics.median(size / 10**6 / run["wall"] for run in runs),
        "peak_mib": max(run["peak_mib"] for run in runs),
        "size": statistics.median(run["size"] / size for run in runs),
    }


def _ratios(table: dict[str, Measured]) -> Measured:
    speed = {way: row["mb_per_cpu_second"] for way, row in table.items()}
    pairs = {"ingest_to_read_json": "read_json", "ingest_to_read_json_threads": "read_json_threads"}
    pairs |= {"ingest_to_polars": "polars", "ingest_to_executemany": "executemany"}
    ratios = {name: speed["ingest"] / speed[other] for name, other in pairs.items() if other in speed}
    return ratios | ({"again_to_ingest": speed["again"] / speed["ingest"]} if "again" in speed else {})


def lookup(folder: Path, runs: int = 50_000, steps: int = 20) -> Measured:
    """CPU milliseconds to load one trajectory by its id out of a million steps of logged chats."""
    from ttc_replay.storage.database import Database
    from ttc_replay.storage.ingest import ingest

    log = folder / "million.jsonl"
    with log.open("w", encoding="utf-8") as file:
        for number in range(runs):
            messages = [{"role": "user", "content": f"task {number}"}]
            for at in range(steps):
                messages.append({"role": "assistant", "content": f"{number} {at} " * 25})
                messages.append({"role": "user", "content": f"answer {number * at}"})
            file.write(json.dumps({"messages": messages, "id": str(number)}) + "\n")
    with Database.open(str(folder / "million.duckdb")) as archive:
        ingest(archive, [str(log)])
        log.unlink()
        times = []
        for identity in sorted(archive.trajectory_ids())[3 :: runs // 40]:
            begin = time.process_time()
            assert len(archive.trajectory(identity).steps) == steps
            times.append(time.process_time() - begin)
    return {"steps": runs * steps, "median_ms": 1000 * statistics.median(times), "most_ms": 1000 * max(times)}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--megabytes", type=float, default=256)
    parser.add_argument("--profile", choices=("support", "coding"), default="support")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--otlp", type=float, default=0, help="megabytes of the same runs as OTLP JSON")
    parser.add_argument("--lookup", action="store_true")
    parser.add_argument("--ways", nargs="*", default=list(WAYS))
    parser.add_argument("--one", nargs=3, metavar=("WAY", "LOG", "DATABASE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one[0], Path(options.one[1]), Path(options.one[2]))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = folder / "chat.jsonl"
        runs = write_chat(log, options.profile, options.megabytes)
        print(f"{log.stat().st_size / 10**6:.0f} MB of openai-chat, {runs} runs ({options.profile})")
        time.sleep(2.5)  # a file that was touched a moment ago is never taken for unchanged
        show(compare(log, options.rounds, folder, options.ways))
        log.unlink()
        if options.otlp:
            traces = folder / "traces.jsonl"
            runs = write_otlp(traces, options.profile, options.otlp)
            print(f"\n{traces.stat().st_size / 10**6:.0f} MB of OTLP JSON, {runs} runs")
            show(compare(traces, options.rounds, folder, ["ingest", "ingest_compressed", "again"]))
        if options.lookup:
            found = lookup(folder)
            print(f"\none trajectory out of {found['steps']:,.0f} steps: {found['median_ms']:.1f} ms (CPU, median)")


def show(found: dict[str, Any]) -> None:
    """As a table."""
    print(f"{'':20}{'MB/CPU s':>10}{'MB/s':>8}{'peak MiB':>10}{'size':>7}")
    for way, row in found["ways"].items():
        cells = f"{row['mb_per_cpu_second']:10.1f}{row['mb_per_second']:8.1f}{row['peak_mib']:10.0f}{row['size']:7.2f}"
        print(f"{way:20}{cells}")
    for ratio, value in found["ratios"].items():
        print(f"{ratio:30}{value:8.2f}")


if __name__ == "__main__":
    main()
