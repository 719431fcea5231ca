"""Rows of LangSmith's Parquet bulk export, read in small batches: JSON columns stay text until they are needed.

Texts come as references to each column's dictionary, because a file of a kilobyte may mean one long text in every row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, BinaryIO

from ..records import Rejected
from .json_text import MAX_VALUES_MEMORY, NOT_FINITE, NOT_READ, TOO_LONG, BadRecord, wrong_shape
from .record_groups import Kept

_FEWEST_ROWS, _MOST_ROWS = 64, 1024  # of a batch; each batch makes the dictionaries anew
_NEEDED = ("id", "run_type")
_TOGETHER = 2**26
_MOST_GROUP = 2**30
_MOST_ITEMS = MAX_VALUES_MEMORY // 40


def is_parquet(data: bytes) -> bool:
    """Whether data begins like a Parquet file."""
    return data.startswith(b"PAR1")


def parquet_rows(stream: BinaryIO) -> Iterator[Kept | Rejected]:
    """Every row as plain JSON with its number from 1; a file that cannot be read is one fatal Rejected."""
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    number = 0
    try:
        texts = _checked(pq.ParquetFile(stream))
        stream.seek(0)
        with pq.ParquetFile(stream, buffer_size=2**20, read_dictionary=texts) as file:
            for batch in file.iter_batches(batch_size=_batch_rows(file.metadata)):
                for row in _rows(batch):
                    number += 1
                    yield _plain_row(row, number)
    except BadRecord as error:
        yield Rejected(error.problem(number or None), fatal=True)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        yield Rejected(BadRecord(NOT_READ, f"Parquet: {said[:160]}").problem(number or None), fatal=True)


def _batch_rows(metadata: Any) -> int:
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    largest = max((group.total_byte_size // max(1, group.num_rows) for group in groups), default=0)
    return max(_FEWEST_ROWS, min(_MOST_ROWS, _TOGETHER // (1 + largest)))


def _rows(batch: Any) -> Iterator[dict[str, Any]]:
    """The rows, made all at once, or one by one where they would be much together. Raises BadRecord."""
    whole = sum(map(_size, batch.columns)) <= _TOGETHER
    for some in [batch] if whole else (batch.slice(row, 1) for row in range(batch.num_rows)):
        if not whole and sum(map(_size, some.columns)) > MAX_VALUES_MEMORY:
            raise BadRecord(TOO_LONG, "a row that is too much to hold")
        columns = [_spelled_out(column).to_pylist() for column in some.columns]
        yield from (dict(zip(some.schema.names, values, strict=True)) for values in zip(*columns, strict=True))


def _spelled_out(column: Any) -> Any:
    """Texts instead of references to them: made into Python's ten times as fast."""
    return column.dictionary_decode() if hasattr(column, "dictionary_decode") else column


def _size(column: Any) -> int:
    """Bytes of the values of an Arrow array, each text as often as it stands there."""
    import pyarrow as pa
    import pyarrow.compute  # type: ignore[import-untyped]

    compute: Any = pyarrow.compute
    if pa.types.is_dictionary(column.type):
        lengths = compute.binary_length(column.dictionary).take(column.indices)
        return int(compute.sum(lengths.cast("int64")).as_py() or 0)
    if pa.types.is_map(column.type):
        return _size(column.keys) + _size(column.items)
    if pa.types.is_nested(column.type) and not pa.types.is_struct(column.type):
        return _size(column.flatten()) + int(column.nbytes)
    return sum(map(_size, column.flatten())) if pa.types.is_struct(column.type) else int(column.nbytes)


def _checked(file: Any) -> list[str]:
    """The columns of texts. Raises BadRecord when it is no export, or states more than can be held."""
    names = set(file.schema_arrow.names)
    if not names.issuperset(_NEEDED):
        raise wrong_shape("no LangSmith export: the columns id and run_type are missing")
    groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
    if any(group.total_byte_size > _MOST_GROUP for group in groups):
        raise BadRecord(TOO_LONG, "a row group of more than 1 GiB")
    columns = [file.schema.column(index) for index in range(len(file.schema))]
    lists = [index for index, column in enumerate(columns) if column.max_repetition_level]
    if any(group.column(index).num_values > _MOST_ITEMS for group in groups for index in lists):
        raise BadRecord(TOO_LONG, f"lists of more than {_MOST_ITEMS} items in a row group")
    return [column.path for column in columns if column.physical_type == "BYTE_ARRAY" and _is_text(column)]


def _is_text(column: Any) -> bool:
    return column.logical_type.type in ("STRING", "JSON", "ENUM", "NONE")


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
