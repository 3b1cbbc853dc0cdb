"""Reads what a token endpoint sends, however it is packed: content codings, charsets, JSON or a form.

An answer to a refresh may be the only copy of a single-use token. So the headers are hints: if they are
missing or wrong, the content itself shows how to read it.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl

# A token answer is a few kilobytes; more is not one, and is not kept in memory.
MAX_ANSWER_BYTES = 262_144
# RFC 9110 §8.4.1: gzip, and deflate in the form of RFC 1950, which some send without its frame.
_GZIP, _ZLIB, _DEFLATE = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
_CODINGS = {"gzip": (_GZIP,), "x-gzip": (_GZIP,), "deflate": (_ZLIB, _DEFLATE)}
# How often an answer may be packed.
_PACKED = 3
# Of how many parts a gzip may be (RFC 1952 §2.2).
_MOST_PARTS = 100
# Those that are sets of characters; Python knows other transformations by such names as well.
_CHARSET = re.compile(
    r"charset\s*=\s*\"?((?:utf|us-ascii|iso|latin|windows|cp|koi8|big5|gb|shift|euc|mac)[a-z0-9_-]{0,20})",
    re.IGNORECASE,
)
_FORM = re.compile(rb"\s*[A-Za-z_]{1,40}=")
_MAX_FIELDS = 100


def members(
    content: bytes, content_encoding: str = "", content_type: str = "", *, whole: bool = True
) -> Mapping[str, Any] | None:
    """Return the members of the JSON object in an answer, or None if the answer holds no object.

    The headers are those of the same names. JSON is what RFC 6749 §5.1 asks for; some providers send a form.
    ``whole``: whether all of the answer has come. Half a form would be read as one with a shorter token.
    """
    # A header may say that a plain answer is packed, and something may even come out of that.
    readings = dict.fromkeys((unpacked(content, content_encoding), content))
    for text in (text for reading in readings for text in _texts(reading, content_type)):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            return found
    forms = (_form(reading) for reading in readings) if whole else ()
    return next((form for form in forms if form is not None), None)


def unpacked(content: bytes, content_encoding: str) -> bytes:
    """The content without its codings (RFC 9110 §8.4), and no more of it than an answer may have."""
    codings = [coding.strip().lower() for coding in content_encoding.split(",")]
    for coding in codings[-1 : -_PACKED - 1 : -1]:
        for form in _CODINGS.get(coding, ()):
            inflated = _inflated(content, form)
            if inflated:
                content = inflated
                break
    for _ in range(_PACKED):
        # Packed once more than the header says.
        told = _told_by(content)
        inflated = b"" if told is None else _inflated(content, told)
        if not inflated:
            break
        content = inflated
    return content[:MAX_ANSWER_BYTES]


def _told_by(content: bytes) -> int | None:
    """The form that the first bytes show (RFC 1952 §2.3.1, RFC 1950 §2.2); no JSON and no form begins so."""
    if content.startswith(b"\x1f\x8b"):
        return _GZIP
    if content[:1] == b"x" and len(content) > 1 and int.from_bytes(content[:2], "big") % 31 == 0:
        return _ZLIB
    return None


def _inflated(content: bytes, form: int) -> bytes:
    """What can be unpacked. A wrong sum at the end spoils nothing that came before it."""
    found = bytearray()
    parts = 0
    while content and len(found) <= MAX_ANSWER_BYTES and (parts := parts + 1) <= _MOST_PARTS:
        inflater = zlib.decompressobj(form)
        try:
            for start in range(0, len(content), 64):
                # Piece by piece: an error takes the piece with it in which it is.
                piece = content[start : start + 64]
                found += inflater.decompress(piece, MAX_ANSWER_BYTES + 1 - len(found))
                if len(found) > MAX_ANSWER_BYTES or inflater.eof:
                    break
        except zlib.error:
            break
        # gzip may come in several parts (RFC 1952 §2.2).
        content = inflater.unused_data + content[start + 64 :] if inflater.eof else b""
    return bytes(found)


def _texts(content: bytes, content_type: str) -> Iterator[bytes | str]:
    """The content in each way that it may be meant. JSON is UTF-8 (RFC 8259 §8.1); it was more once."""
    # Python tells UTF-8, UTF-16 and UTF-32 from each other.
    yield content
    declared = _CHARSET.search(content_type)
    for name in (declared[1] if declared else "", "latin-1"):
        try:
            yield content.decode(name)
        except (LookupError, ValueError):
            continue


def _form(content: bytes) -> Mapping[str, str] | None:
    if not _FORM.match(content):
        return None
    try:
        return dict(parse_qsl(content.decode("latin-1").strip(), max_num_fields=_MAX_FIELDS))
    except ValueError:
        return None
