"""Strict, streaming JSON: containers told by content, values cut out of any stream, problems that say where."""

from __future__ import annotations

import io
import json
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttc_replay.storage.readers.json_input import read_head
from ttc_replay.storage.readers.json_scan import Scanner, elements, keys
from ttc_replay.storage.readers.json_text import DUPLICATE_KEY, BadRecord, balanced, cut_short, decode, ends_in_string

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


def test_problems_say_where_the_number_is() -> None:
    assert _problem(b'{"messages": [], "reward": NaN}') == "reward is NaN"
    assert _problem(b'{"messages": [{"role": "user", "x": [0, -1e999]}]}') == "messages[0].x[1] is -Infinity"


def _problem(data: bytes) -> str:
    with pytest.raises(BadRecord) as caught:
        decode(data)
    return caught.value.message


ESCAPED = st.text(st.sampled_from('a:"\\\u00e9/'), max_size=6).map(
    lambda text: "".join(f"\\u{ord(letter):04x}" if letter in ':"' else json.dumps(letter)[1:-1] for letter in text)
)


@given(st.lists(st.tuples(ESCAPED, ESCAPED), max_size=5), st.booleans())
def test_a_key_that_stands_twice_is_found_however_it_is_spelled(pairs: list[tuple[str, str]], spaced: bool) -> None:
    between = " : " if spaced else ":"
    data = ("{" + ",".join(f'"{key}"{between}"{value}"' for key, value in pairs) + "}").encode()
    keys = [json.loads(f'"{key}"') for key, _ in pairs]
    if len(set(keys)) < len(keys):
        with pytest.raises(BadRecord) as caught:
            decode(data)
        assert caught.value.error_code == DUPLICATE_KEY
    else:
        assert decode(data) == json.loads(data)


@pytest.mark.parametrize(
    ("data", "container"),
    [
        (b"", "empty"),
        (b" \n\t\n", "empty"),
        (b'{"a": 1}', "document"),
        (b'{"a": 1}\n{"b": 2}', "lines"),
        (b'{"a": "cut\n{"b": 2}', "lines"),
        (b'{\n{"b": 2}', "lines"),
        (b'{"a": 1, "b\n{"b": 2}', "lines"),
        (b'{"a": [1\n{"b": 2}', "lines"),
        (b'{"a": [1,\n{"b": 2}]}', "document"),
        (b"noise\n" + b'{"b": 2}', "lines"),
        (b'{\n "a": [\n {"b": 2}\n ]\n}', "document"),
        (b'[{"a": 1},\n {"b": 2}\n]', "array"),
        (b"# title\ntext", "other"),
        (b"PK\x03\x04....", "other"),
    ],
)
def test_containers_are_told_by_content(data: bytes, container: str) -> None:
    assert read_head(io.BytesIO(data)).container == container


@given(st.lists(JSON_VALUES, max_size=5), st.integers(1, 40), st.sampled_from([None, 1, 3]))
def test_the_scanner_cuts_where_json_does(values: list[Any], chunk: int, indent: int | None) -> None:
    class Trickle(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(chunk)

    text = json.dumps(values, indent=indent, ensure_ascii=False).encode("utf-8", "surrogatepass")
    raws = [raw for _, raw in elements(Scanner(Trickle(text)))]
    assert [json.loads(raw or b"") for raw in raws] == values
    scanner = Scanner(Trickle(json.dumps({str(i): value for i, value in enumerate(values)}, indent=indent).encode()))
    assert [(key, scanner.value() is not None) for key in keys(scanner)] == [(str(i), True) for i in range(len(values))]


@given(JSON_VALUES, st.data())
def test_a_text_is_balanced_whole_and_cut_short_before(value: Any, data: st.DataObject) -> None:
    text = json.dumps([value]).encode()
    part = text[: data.draw(st.integers(1, len(text) - 1))]
    assert balanced(text)
    assert not ends_in_string(text)
    assert cut_short(part)
    assert not balanced(part)


@given(JSON_VALUES)
def test_strict_decoding_agrees_with_json_on_sound_text(value: Any) -> None:
    assert decode(json.dumps(value).encode()) == value
    assert decode(json.dumps(value, ensure_ascii=False, indent=1).encode()) == value


def test_a_value_over_the_limit_is_stepped_over() -> None:
    text = b'["' + b"a" * 3_000_000 + b'", [' + b"1," * 1_500_000 + b"1], 5]"
    found = list(elements(Scanner(io.BytesIO(text), limit=1000)))
    assert [raw for _, raw in found] == [None, None, b"5"]


def test_nul_in_text_is_kept_and_raw_nul_is_not() -> None:
    assert decode(b'{"content": "a\\u0000b"}') == {"content": "a\x00b"}
    with pytest.raises(BadRecord, match="raw NUL"):
        decode(b'{"content": "a\x00b"}')


@pytest.mark.parametrize("seed", range(6))
def test_a_long_value_is_cut_where_it_ends(seed: int) -> None:
    """Long enough that the scanner goes by blocks: brackets in strings, escapes, and the end anywhere in a block."""
    random = Random(seed)
    leaves: list[Any] = ['[{"', "}]\\", 'a"b', "\\\\", "x" * 300, 1, None, [], {}, [[[]]], {"]": {"}": ["["]}}]
    values: list[Any] = [[random.choice(leaves) for _ in range(random.randrange(3_000, 90_000))] for _ in range(3)]
    values.insert(1, "y" * 200_000 + '"[')
    values.append({"deep": [[values[0]]], "next": values[2][:100]})
    text = json.dumps(values, indent=random.choice([None, 1]), ensure_ascii=random.random() < 0.5).encode()
    assert [json.loads(raw or b"") for _, raw in elements(Scanner(io.BytesIO(text)))] == values


def test_a_value_that_never_ends_is_told_at_its_beginning() -> None:
    scanner = Scanner(io.BytesIO(b"\n[" + b'{"a":[]},' * 200_000))
    with pytest.raises(BadRecord) as caught:
        scanner.value()
    assert (caught.value.error_code, caught.value.at_line) == ("TTC-E019", 2)


def test_a_head_is_told_although_its_text_is_no_unicode() -> None:
    """One lone surrogate or one wrong byte must not hide of which format a file is."""
    for data in (b'{"a": "\\ud800 \\ud83d\\ude00"}\n{"a": "\xff"}\n', b'[{"a": "\\uDFFF"}, {"a": "\xff"}]'):
        head = read_head(io.BytesIO(data))
        assert [list(record) for record in head.records] == [["a"], ["a"]]
        assert all(record["a"].encode() for record in head.records)
        assert head.data == data


def test_stored_text_in_an_archive_or_a_database_is_no_log() -> None:
    for magic in (b"PK\x03\x04", b"SQLite format 3\x00", b"PAR1", b"\x1f\x8b"):
        head = read_head(io.BytesIO(magic + b'\n{"messages": []}\n{"messages": []}\n'))
        assert (head.container, head.records) == ("other", ())
