"""The files that rules.toml names: read once at load, so that no message sees half of two configurations."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

LARGEST_TEXT_BYTES = 512 * 1024  # a signature of this size would travel with every mail
IMAGE_LIMIT_BYTES = 50 * 1024  # exclusive: an image of exactly this size is refused

_MAGIC = {  # by bytes, never by name
    b"\xff\xd8\xff": "jpeg",
    b"GIF87a": "gif",
    b"GIF89a": "gif",
    b"\x89PNG\r\n\x1a\n": "png",
    b"BM": "bmp",
}


class Content(str):
    """A text, and the file that it came from (None: it stands in rules.toml itself)."""

    file: Path | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """`subtype`: of the media type image/…, found from the bytes."""

    path: Path
    subtype: str
    data: bytes = field(repr=False)


class Files:
    """Reads files and remembers what it read; with `kept`, reads those from there instead of the disk.

    `is_copy`: they are of another day, and today's gateway.toml need not fit in every detail.
    """

    def __init__(self, kept: Mapping[Path, Path] | None = None, *, is_copy: bool = True) -> None:
        self._kept = kept or {}
        self.is_copy = kept is not None and is_copy
        self.read_so_far: dict[Path, bytes] = {}

    def where(self, path: Path) -> Path:
        """Return the file to open for `path`: itself, or the copy that was kept of it."""
        return self._kept.get(path, path)

    def read(self, path: Path, limit: int) -> bytes:
        """Return the bytes. Raises ValueError with a sentence for the admin."""
        if path in self.read_so_far:
            content = self.read_so_far[path]
        else:
            try:
                content = _read(self.where(path), limit)
            except OSError as error:
                raise ValueError(f"{path} {why_unreadable(error)}") from None
            self.read_so_far[path] = content
        if len(content) > limit:
            raise ValueError(f"{path} is larger than {limit // 1024} KiB")
        return content

    def _size(self, path: Path) -> int:
        try:
            return self.where(path).stat().st_size
        except OSError:
            return len(self.read_so_far.get(path, b""))

    def text(self, path: Path) -> Content:
        try:
            content = Content(self.read(path, LARGEST_TEXT_BYTES).decode("utf-8-sig"))
        except UnicodeDecodeError:
            raise ValueError(f"{path} is not UTF-8; save it as UTF-8") from None
        content.file = path
        return content

    def image(self, path: Path) -> Image:
        try:
            data = self.read(path, IMAGE_LIMIT_BYTES - 1)
        except ValueError:
            if len(self.read_so_far.get(path, b"")) < IMAGE_LIMIT_BYTES:
                raise
            raise ValueError(
                f"{path} has {self._size(path):,} bytes; an image must have fewer than {IMAGE_LIMIT_BYTES:,} (50 KiB)"
            ) from None
        subtype = image_type(data)
        if subtype is None:
            raise ValueError(f"{path} is not a JPG, GIF, PNG or BMP image (its content decides, not its name)")
        return Image(path, subtype, data)


def _read(path: Path, limit: int) -> bytes:
    """Return at most one byte more than `limit`. Never waits: for a pipe somebody would have to write."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if stat.S_ISDIR(mode := os.fstat(descriptor).st_mode):
            raise IsADirectoryError
        if not stat.S_ISREG(mode):
            raise OSError(0, "it is no file but a pipe, a socket or a device")
        return file.read(limit + 1)


def why_unreadable(error: OSError, remedy: str = "create it or correct the name") -> str:
    """Return what stands behind the name of a file that cannot be read."""
    match error:
        case FileNotFoundError() | NotADirectoryError():
            return f"does not exist; {remedy}"
        case PermissionError():
            return "cannot be read by this user; look at its owner and mode"
        case IsADirectoryError():
            return "is a directory; name a file"
    return f"cannot be read: {(error.strerror or str(error)).lower()}"


def image_type(data: bytes) -> str | None:
    """Return the subtype of image/… by the first bytes, or None."""
    return next((subtype for magic, subtype in _MAGIC.items() if data.startswith(magic)), None)
