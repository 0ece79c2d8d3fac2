"""Memory for messages on their way in, shared by all touchpoints.

A batch that finds no room is not kept waiting, for then a slow provider could make others wait: it comes in small
pieces instead. So the sum is bounded by the room and one small piece a touchpoint.
"""

from __future__ import annotations

from typing import Final

ROOM_BYTES: Final = 64 * 1024 * 1024
SMALL_BYTES: Final = 256 * 1024


class Room:
    """Used from one thread. What is taken is to be given back."""

    def __init__(self, total_bytes: int = ROOM_BYTES) -> None:
        self.free_bytes = total_bytes

    def take(self, size: int) -> bool:
        """Take `size` bytes, or nothing where there are not so many."""
        if size > self.free_bytes:
            return False
        self.free_bytes -= size
        return True

    def give(self, size: int) -> None:
        self.free_bytes += size
