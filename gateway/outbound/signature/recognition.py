"""Is the signature there already, and not only in what is quoted?

A client that edits a sent copy again writes it in ways of its own: another charset and transfer encoding, lines cut
elsewhere, the blank behind the delimiter lost. So text is compared without its blanks and line ends, from a delimiter
line to the end of a line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import accumulate, islice, product
from unicodedata import normalize

from gateway.outbound.signature.block import DELIMITER

_DELIMITER = re.compile(rb"(?:\A|(?<=\n))--(?:[ \t\r\xa0]|\xc2\xa0){0,20}(?=\n|\Z)")


def blocks_in_text(octets: bytes, codec: str, block: str) -> Iterator[int]:
    """Yield where a delimiter line has the block's text behind it, whoever wrapped it. `block` with its delimiter."""
    wanted = _squeezed(block.removeprefix(DELIMITER))
    first = _DELIMITER.search(octets)
    if not wanted or first is None:
        return
    lines = octets[first.start() :].split(b"\n")
    starts = accumulate((len(line) + 1 for line in lines), initial=first.start())
    squeezed = [_squeezed(line.decode(codec, "replace")) for line in lines]
    ends = list(accumulate(map(len, squeezed)))
    all_lines, line_ends = "".join(squeezed), frozenset(ends)
    for start, line, end in zip(starts, lines, ends, strict=False):
        is_delimiter = line.startswith(b"--") and _DELIMITER.fullmatch(line)
        if is_delimiter and all_lines.startswith(wanted, end) and end + len(wanted) in line_ends:
            yield start


def _squeezed(text: str) -> str:
    return "".join((text if text.isascii() else normalize("NFC", text)).split())


def would_put(octets: bytes, block: bytes, lead: bytes, tail: bytes, insertion: Callable[[bytes], bytes]) -> bool:
    """Is a block just where we would put it, were it not there? Damaged text may be read in another way with it.

    `lead` and `tail`: what may have come with it; `insertion` puts the block into what it is given.
    """
    leads = {lead[:width] for width in range(len(lead) + 1)}
    for match in islice(re.finditer(re.escape(block), octets), 3):
        for before, behind in product(leads, {tail, b""}):
            if octets.endswith(before, 0, match.start()) and octets.startswith(behind, match.end()):
                rest = octets[: match.start() - len(before)] + octets[match.end() + len(behind) :]
                if insertion(rest) == octets:
                    return True
    return False
