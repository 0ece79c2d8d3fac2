"""Charsets that we write into: a closed list, because Python's own registry imports by a sender's wish.

Reading is lenient elsewhere (`scan`); here text is *added* to a part whose charset somebody else named, so a label
means exactly itself: a euro sign does not go into iso-8859-1 although most readers would show it.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Charset(NamedTuple):
    """`codec`: Python's name. `is_ascii_superset`: `<`, `>`, `-` and line breaks are never half of another sign, so
    that they can be found in the bytes (the second octet of Big5 or Shift JIS may be a letter, but none of these)."""

    codec: str
    is_ascii_superset: bool = True


UTF_8: Final = Charset("utf-8")
ASCII: Final = Charset("ascii")


def charset(label: str) -> Charset | None:
    """Return what a charset parameter names, or None for one that we do not write. "" is US-ASCII (RFC 2046 §4.1.2)."""
    return _CHARSETS.get(label.strip().lower().replace("_", "-"))


def _charsets() -> dict[str, Charset]:
    names = {"": "ascii", "us-ascii": "ascii", "ascii": "ascii", "utf-8": "utf-8", "utf8": "utf-8"}
    names |= {f"iso-8859-{n}": f"iso8859-{n}" for n in (*range(1, 11), 13, 14, 15, 16)}
    names |= {f"iso8859-{n}": f"iso8859-{n}" for n in (1, 2, 9, 15)} | {"latin1": "iso8859-1", "latin-1": "iso8859-1"}
    names |= {f"{prefix}{n}": f"cp{n}" for n in range(1250, 1259) for prefix in ("windows-", "cp")}
    names |= {"iso-8859-11": "iso8859-11", "tis-620": "tis-620", "windows-874": "cp874"}
    names |= {"koi8-r": "koi8-r", "koi8-u": "koi8-u", "macintosh": "mac-roman"}
    names |= {"gb2312": "gb2312", "gbk": "gbk", "cp936": "gbk", "gb18030": "gb18030", "big5": "big5"}
    names |= {"euc-jp": "euc-jp", "shift-jis": "shift-jis", "euc-kr": "euc-kr", "ks-c-5601-1987": "cp949"}
    stateful = {"iso-2022-jp": "iso2022-jp", "iso-2022-kr": "iso2022-kr", "hz-gb-2312": "hz", "utf-7": "utf-7"}
    stateful |= {"utf-16": "utf-16", "utf-16le": "utf-16-le", "utf-16be": "utf-16-be", "utf-32": "utf-32"}
    return {label: Charset(codec) for label, codec in names.items()} | {
        label: Charset(codec, is_ascii_superset=False) for label, codec in stateful.items()
    }


_CHARSETS: Final = _charsets()
