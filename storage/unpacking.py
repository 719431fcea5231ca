"""Packed or encoded bytes as a plain stream: gzip (of several members too), zstd, UTF-16 and UTF-32.

Everything is unpacked while it is read, in bounded memory, and can be read again from any place: going back starts
anew. What unpacks to more than the limits allow (`storage/limits.py`) ends with a coded error, after what came before.
"""

from __future__ import annotations

import codecs
import io
import zlib
from collections.abc import Callable, Generator, Iterator
from typing import Any, BinaryIO, cast

from .limits import current, shown_size
from .readers.json_text import BAD_GZIP, CUT_SHORT, NOT_UNICODE, BadRecord

TOO_BIG = "TTC-E028"

CHUNK = 2**18
_ZSTD_STEP = 2**11  # a zstd block of 4 bytes may hold 128 KiB: small steps bound what one of them makes
_ZSTD_WINDOW = 2**27  # what `zstd --long` writes and its decoder takes by default
_BOMB_BYTES = 10 * 2**20
GZIP, ZSTD, ZIP = b"\x1f\x8b", b"(\xb5/\xfd", b"PK\x03\x04"
EMPTY_ZIP = b"PK\x05\x06"
_OTHER_PACKED = (b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!")
_SKIPPABLE = tuple(bytes((first,)) + b"*M\x18" for first in range(0x50, 0x60))  # a zstd frame without content
ENCODINGS = (  # UTF-32 first: its mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


class Restarted(io.RawIOBase):
    """A readable, seekable stream over chunks that `start` makes anew each time the reader goes back."""

    def __init__(self, start: Callable[[], Iterator[bytes]]):
        self._start = start
        self._chunks = start()
        self._rest = memoryview(b"")
        self._at = 0
        self._error: Exception | None = None

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always; going back costs as much as reading all of it again."""
        return True

    def tell(self) -> int:
        """The place, in unpacked bytes."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill (part of) the buffer. Raises what the chunks raise."""
        while not self._rest:
            chunk = self._next()
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        self._at += size
        return size

    def _next(self) -> bytes | None:
        """The next chunk. An error is raised again by each further read: a generator that raised would just end."""
        if self._error is not None:
            raise self._error
        try:
            return next(self._chunks, None)
        except Exception as error:
            self._error = error
            raise

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place; beyond the end this is the end. Raises what the chunks raise."""
        if whence == io.SEEK_END:
            self._skip(None)
            offset += self._at
        elif whence == io.SEEK_CUR:
            offset += self._at
        if offset < self._at:
            self._chunks, self._rest, self._at, self._error = self._start(), memoryview(b""), 0, None
        self._skip(offset)
        return self._at

    def _skip(self, target: int | None) -> None:
        """Read on to `target`, or to the end."""
        waste = bytearray(CHUNK)
        while target is None or self._at < target:
            size = CHUNK if target is None else min(CHUNK, target - self._at)
            if not self.readinto(memoryview(waste)[:size]):
                return


def is_zip(data: bytes) -> bool:
    """Whether these are the first bytes of a zip archive."""
    return data.startswith((ZIP, EMPTY_ZIP))


def is_packed(data: bytes) -> bool:
    """Whether these are the first bytes of an archive or of compressed data."""
    return is_zip(data) or data.startswith((GZIP, ZSTD, *_OTHER_PACKED)) or data[257:262] == b"ustar"


def is_unpacked(stream: BinaryIO) -> bool:
    """Whether the stream is made of packed or encoded bytes while it is read."""
    return isinstance(getattr(stream, "raw", None), Restarted)


def stream_of(start: Callable[[], Iterator[bytes]]) -> BinaryIO:
    """The chunks as a buffered binary stream."""
    return cast(BinaryIO, io.BufferedReader(Restarted(start), CHUNK))


def open_unpacked(stream: BinaryIO) -> BinaryIO:
    """The seekable `stream` itself, or its content where it is gzip, zstd or UTF-16. A zip is left as it is."""
    return open_text(_open_compressed(stream))


def _open_compressed(stream: BinaryIO) -> BinaryIO:
    magic = stream.read(4)
    stream.seek(0)
    if magic.startswith(GZIP):
        return stream_of(lambda: bounded(_gzip(_anew(stream)), stream.tell, "gzip"))
    if magic == ZSTD or magic in _SKIPPABLE:
        return stream_of(lambda: bounded(_zstd(_anew(stream)), stream.tell, "zstd"))
    return stream


def open_text(stream: BinaryIO) -> BinaryIO:
    """The stream itself, or its text as UTF-8 where it begins with a byte order mark of UTF-16 or UTF-32.

    What has no byte order mark of these but cannot even be read is left to whoever reads it.
    """
    try:
        magic = stream.read(4)
    except (BadRecord, OSError, EOFError, zlib.error):
        magic = b""
    stream.seek(0)
    encoding = next((name for mark, name in ENCODINGS if magic.startswith(mark)), None)
    return stream if encoding is None else stream_of(lambda: transcoded(_anew(stream), encoding))


def _anew(stream: BinaryIO) -> BinaryIO:
    stream.seek(0)
    return stream


def bounded(chunks: Iterator[bytes], packed: Callable[[], int], what: str) -> Iterator[bytes]:
    """The chunks, until they are more than the limits allow for `packed()` bytes. Raises BadRecord there."""
    limits, unpacked = current(), 0
    for chunk in (large[at : at + CHUNK] for large in chunks for at in range(0, len(large), CHUNK)):
        unpacked += len(chunk)
        check_ratio(unpacked, packed(), what, limits.ratio)
        if unpacked > limits.file:
            raise too_big(f"{what}: unpacks to more than {shown_size(limits.file)}")
        yield chunk


def check_ratio(unpacked: int, packed: int, what: str, ratio: int) -> None:
    """Raise BadRecord when so few bytes unpack to so many that they look like a bomb."""
    if unpacked > _BOMB_BYTES and unpacked > ratio * max(packed, 1):
        raise BadRecord(
            BAD_GZIP, f"{what}: {packed} bytes unpack to more than {unpacked // 2**20} MiB (--max-ratio {ratio})"
        )


def too_big(message: str) -> BadRecord:
    """A file over `--max-file`."""
    return BadRecord(TOO_BIG, f"{message} (--max-file)")


def _gzip(stream: BinaryIO) -> Iterator[bytes]:
    """Members one behind the other; zero bytes behind them are padding. Raises BadRecord at the damaged place."""
    data = stream.read(CHUNK)
    while data:
        data = (yield from _gzip_member(stream, data)).lstrip(b"\x00")
        while not data and (more := stream.read(CHUNK)):
            data = more.lstrip(b"\x00")


def _gzip_member(stream: BinaryIO, data: bytes) -> Generator[bytes, None, bytes]:
    """Unpack one member that begins with `data`; what was read beyond its end is returned."""
    decoder = zlib.decompressobj(wbits=31)
    while not decoder.eof:
        try:
            chunk = decoder.decompress(data, CHUNK)
        except zlib.error as error:
            raise BadRecord(BAD_GZIP, f"damaged gzip: {error}") from None
        if chunk:
            yield chunk
        data = decoder.unconsumed_tail
        if not data and not decoder.eof:
            data = stream.read(CHUNK)
            if not data and not chunk:
                raise _cut("gzip")
    return decoder.unused_data


def _zstd(stream: BinaryIO) -> Iterator[bytes]:
    """Frames one behind the other. Raises BadRecord at the damaged place."""
    from zstandard import ZstdDecompressor, ZstdError

    unpacker = ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    data = stream.read(_ZSTD_STEP)
    while data:
        frame = unpacker.decompressobj()
        while not frame.eof:
            if not data:
                raise _cut("zstd")
            try:
                chunk = frame.decompress(data)
            except ZstdError as error:
                raise BadRecord(BAD_GZIP, f"damaged zstd: {error}") from None
            if chunk:
                yield chunk
            data = b"" if frame.eof else stream.read(_ZSTD_STEP)
        data = frame.unused_data or stream.read(_ZSTD_STEP)


def _cut(what: str) -> BadRecord:
    return BadRecord(BAD_GZIP, f"damaged {what}: it ends in the middle (cut, or its writer is still running)")


def transcoded(stream: BinaryIO, encoding: str) -> Iterator[bytes]:
    """The text behind the byte order mark as UTF-8. A lone surrogate costs its record, not the file: it becomes bytes
    that are no UTF-8. Raises BadRecord when the text ends within a character.
    """
    decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
    stream.read(4 if encoding.startswith("utf-32") else 2)
    try:
        while data := cast(Any, stream).read1(CHUNK):
            yield decoder.decode(data).encode("utf-8", "surrogatepass")
        yield decoder.decode(b"", final=True).encode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        name = encoding[:6].upper()
        if error.reason == "truncated data":
            raise BadRecord(CUT_SHORT, f"{name} text that ends within a character") from None
        raise BadRecord(NOT_UNICODE, f"not {name}: {error.reason}") from None
