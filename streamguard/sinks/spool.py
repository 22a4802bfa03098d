"""A bounded spool on disk: lines that are not lost when the process is killed.

A line is in the kernel's hands when ``append`` returns, so it survives ``kill -9``; ``sync``
puts it on the disk itself, which also survives a power cut. Every segment is locked by the
process that writes it. When that process is gone the lock is too, and the next process that
looks takes the segment over. Readers must tolerate a line twice: a segment whose reader died
is read again from its start.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

WhenFull = Literal["drop_newest", "drop_oldest"]

_SUFFIX = ".spool"
_PARTS = 8


@dataclass(slots=True)
class _Segment:
    path: Path
    fd: int
    size: int = 0
    read: int = 0

    def remove(self) -> None:
        """Unlink before the lock goes, so that nobody takes an empty segment over."""
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        os.close(self.fd)


class Spool:
    """Lines in segment files under one folder, which processes may share.

    One thread reads, any may append. ``max_bytes`` bounds what this process keeps (at least
    64 KiB); ``when_full`` says which lines go then, and ``dropped`` counts them.
    """

    def __init__(
        self, folder: Path, *, max_bytes: int = 2**28, when_full: WhenFull = "drop_newest"
    ) -> None:
        self._folder = folder
        self._part = max(2**13, max_bytes // _PARTS)
        self._when_full = when_full
        self._segments: list[_Segment] = []
        self._active: _Segment | None = None
        self._reading: _Segment | None = None
        self._lock = threading.Lock()
        self._serial = 0
        self._mend = False
        self.dropped = 0

    @property
    def pending_bytes(self) -> int:
        """Bytes that are spooled and not yet ``done``."""
        return sum(segment.size - segment.read for segment in list(self._segments))

    def append(self, line: bytes) -> bool:
        """Add a line, which must hold no end of line; False when it was dropped."""
        with self._lock:
            data = b"\n" + line + b"\n" if self._mend else line + b"\n"
            segment = self._room_for(len(data))
            if segment is None or not self._write(segment, data):
                self.dropped += 1
                return False
            return True

    def read(self, limit: int = 2**20) -> tuple[list[bytes], int]:
        """Up to about ``limit`` bytes of the oldest lines, and the mark to give to ``done``."""
        with self._lock:
            waiting = (segment for segment in self._segments if segment.size > segment.read)
            self._reading = segment = next(waiting, None)
        if segment is None:
            return [], 0
        data = os.pread(segment.fd, limit, segment.read)
        whole = data.rfind(b"\n") + 1
        if not whole and len(data) == limit:
            return self.read(limit * 2)
        if not whole and segment is not self._active:
            whole = segment.size - segment.read  # torn at the end: its writer died
        return [line for line in data[:whole].split(b"\n") if line], whole

    def done(self, mark: int) -> None:
        """What ``read`` gave is safe elsewhere: forget it."""
        with self._lock:
            segment, self._reading = self._reading, None
            if segment is None:
                return
            segment.read += mark
            if segment.read < segment.size:
                return
            if segment is self._active:
                os.ftruncate(segment.fd, 0)
                segment.size = segment.read = 0
            else:
                self._segments.remove(segment)
                segment.remove()

    def adopt(self) -> int:
        """Take over the segments of processes that are gone; how many."""
        if not self._folder.is_dir():
            return 0
        own = {segment.path for segment in self._segments}
        found = [path for path in sorted(self._folder.glob(f"*{_SUFFIX}")) if path not in own]
        taken = [segment for path in found for segment in _take_over(path)]
        with self._lock:
            self._segments = taken + self._segments
        return len(taken)

    def sync(self) -> None:
        """Put what was appended on the disk itself; appends need not wait for it."""
        with self._lock:
            fd = None if self._active is None else os.dup(self._active.fd)
        if fd is not None:
            os.fdatasync(fd)
            os.close(fd)

    def close(self) -> None:
        """Let go of every segment; what is pending stays for the next process."""
        with self._lock:
            for segment in self._segments:
                if segment.read >= segment.size:
                    segment.remove()
                else:
                    os.fsync(segment.fd)
                    os.close(segment.fd)
            self._segments, self._active, self._reading = [], None, None

    def forked(self) -> None:
        """In a child process: leave the parent's segments to the parent."""
        self._lock = threading.Lock()
        for segment in self._segments:
            os.close(segment.fd)
        self._segments, self._active, self._reading = [], None, None

    def _write(self, segment: _Segment, data: bytes) -> bool:
        try:
            written = os.write(segment.fd, data)
        except OSError:
            return False
        segment.size += written
        self._mend = written < len(data)
        return not self._mend

    def _room_for(self, more: int) -> _Segment | None:
        active = self._active
        if active is not None and active.size + more <= self._part:
            return active
        held = sum(segment.size for segment in self._segments)
        if held > self._part * (_PARTS - 1) and not self._drop_oldest():
            return None
        try:
            self._active = self._new_segment()
        except OSError:
            return None
        self._segments.append(self._active)
        return self._active

    def _drop_oldest(self) -> bool:
        if self._when_full == "drop_newest":
            return False
        oldest = next(segment for segment in self._segments if segment is not self._reading)
        self._segments.remove(oldest)
        rest = os.pread(oldest.fd, oldest.size, oldest.read)
        self.dropped += rest.count(b"\n")
        oldest.remove()
        return True

    def _new_segment(self) -> _Segment:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._serial += 1
        name = f"{time.time_ns():020d}-{os.getpid()}-{self._serial:06d}"
        draft, path = self._folder / f"{name}.new", self._folder / f"{name}{_SUFFIX}"
        fd = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        draft.rename(path)  # only now can others see it, and it is locked
        return _Segment(path, fd)


def _take_over(path: Path) -> Iterator[_Segment]:
    """The segment, unless its process lives or another one was faster."""
    try:
        fd = os.open(path, os.O_RDWR)
    except OSError:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        here, size = path.stat(), os.fstat(fd)
    except OSError:
        os.close(fd)
        return
    if here.st_ino != size.st_ino:
        os.close(fd)
        return
    segment = _Segment(path, fd, size=size.st_size)
    if segment.size == 0:
        segment.remove()
        return
    yield segment
