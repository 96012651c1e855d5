"""Input that somebody made on purpose: texts that some functions read slowly, and values that no row may have."""

from __future__ import annotations

from typing import Any

UNSOUND: list[tuple[str, str, Any]] = [
    # (column of the first memory, its value in an export, its value in the journal)
    ("metadata", [1], "[1]"),
    ("metadata", "x", '"x"'),
    ("sources", True, "true"),
    ("sources", [1], "[1]"),
    ("sources", {"a": 1}, '{"a":1}'),
    ("created_at", 253402300800000000, 253402300800000000),
    ("updated_at", -(10**18), -(10**18)),
    ("time", 10**18, 10**18),
    ("utc_offset", 90_000, 90_000),
    ("last_seen", "yesterday", "yesterday"),
    ("valid_at", 1.5, 1.5),
    ("user_id", "v", "v"),
    ("kind", "fable", "fable"),
    ("kind", "item", "item"),
    ("state", 9, 9),
    ("asks", 3, 3),
    ("count", -1, -1),
    ("value", 7, b"7"),
    ("value", "a\x00b", "a\x00b"),
    ("ns", 999, 999),
    ("seq", 999, 999),
]


def repeated(size: int) -> dict[str, str]:
    """Kinds of text of about `size` characters each."""
    return {
        "blanks": "<" + " " * size, "brackets": "<" * size, "articles": "the " * (size // 4) + "cat",
        "comments": '{"facts":["' + '" /*' * (size // 4), "braces": "[{" * (size // 2), "digits": "1" * size,
        "numbers": "twenty one hundred " * (size // 19), "quotes": "\\\"'" * (size // 3),
        "marks": "e\u0301\u0301\u0301" * (size // 4), "chinese": "两百二十一年前的春节，" * (size // 11),
        "halves": "half an hour " * (size // 13), "dots": "a.b-c_d/" * (size // 8),
        "dates": "last week of May 2024-01-01 at 10:00 " * (size // 37),
    }  # fmt: skip
