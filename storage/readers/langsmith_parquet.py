"""Rows of LangSmith's Parquet bulk export, read in small batches: JSON columns stay text until they are needed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, BinaryIO

from ..records import Rejected
from .json_text import MAX_VALUES_MEMORY, NOT_FINITE, NOT_READ, TOO_LONG, BadRecord, wrong_shape
from .record_groups import Kept

_BATCH_ROWS = 64
_NEEDED = ("id", "run_type")
_MOST_GROUP = 2**30


def is_parquet(data: bytes) -> bool:
    """Whether data begins like a Parquet file."""
    return data.startswith(b"PAR1")


def parquet_rows(stream: BinaryIO) -> Iterator[Kept | Rejected]:
    """Every row as plain JSON with its number from 1; a file that cannot be read is one fatal Rejected."""
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    number = 0
    try:
        with pq.ParquetFile(stream, buffer_size=2**20) as file:
            _check(file)
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                if batch.nbytes > MAX_VALUES_MEMORY:
                    raise BadRecord(TOO_LONG, f"rows {number + 1} to {number + batch.num_rows} are too much to hold")
                for row in batch.to_pylist():
                    number += 1
                    yield _plain_row(row, number)
    except BadRecord as error:
        yield Rejected(error.problem(number or None), fatal=True)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        yield Rejected(BadRecord(NOT_READ, f"Parquet: {said[:160]}").problem(number or None), fatal=True)


def _check(file: Any) -> None:
    names = set(file.schema_arrow.names)
    if not names.issuperset(_NEEDED):
        raise wrong_shape("no LangSmith export: the columns id and run_type are missing")
    sizes = (file.metadata.row_group(index).total_byte_size for index in range(file.metadata.num_row_groups))
    if any(size > _MOST_GROUP for size in sizes):
        raise BadRecord(TOO_LONG, "a row group of more than 1 GiB")


def _plain_row(row: dict[str, Any], number: int) -> Kept | Rejected:
    try:
        return Kept({name: _plain(row[name]) for name in row if row[name] is not None}, number)
    except BadRecord as error:
        return Rejected(error.problem(number))


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return (value if value.tzinfo is not None else value.replace(tzinfo=UTC)).isoformat()
    if isinstance(value, (date, Decimal)):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not math.isfinite(value):
        raise BadRecord(NOT_FINITE, "a number is not finite")
    if isinstance(value, dict):
        return {str(key): _plain(value[key]) for key in value}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool)) or value is None else str(value)
