from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamguard.sinks.spool import Spool


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "spool"


def drained(spool, limit=2**20):
    lines = []
    while True:
        some, mark = spool.read(limit)
        if not mark:
            return lines
        lines += some
        spool.done(mark)


def numbered(count, size=100):
    return [f"{number}".rjust(size, ".").encode() for number in range(count)]


def test_lines_come_back_in_order_and_leave_nothing_behind(folder):
    spool = Spool(folder)
    lines = numbered(50)
    assert all(spool.append(line) for line in lines)
    assert spool.pending_bytes == 50 * 101
    assert drained(spool, 1_000) == lines
    assert spool.pending_bytes == 0
    spool.close()
    assert list(folder.iterdir()) == []


def test_what_is_read_and_not_done_is_read_again(folder):
    spool = Spool(folder)
    spool.append(b"one")
    assert spool.read()[0] == [b"one"]
    spool.append(b"two")
    assert spool.read()[0] == [b"one", b"two"]
    spool.close()


def test_a_line_longer_than_the_limit_is_read_whole(folder):
    spool = Spool(folder)
    lines = [b"x" * 1_000, b"y" * 10]
    for line in lines:
        spool.append(line)
    assert drained(spool, 64) == lines
    spool.close()


def test_done_without_a_read_does_nothing(folder):
    spool = Spool(folder)
    spool.append(b"one")
    spool.done(4)
    assert drained(spool) == [b"one"]
    spool.close()


def test_only_the_owner_may_look(folder):
    spool = Spool(folder)
    spool.append(b"one")
    (segment,) = folder.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(segment.stat().st_mode) == 0o600
    spool.close()


def test_a_living_process_keeps_its_segments(folder):
    mine, other = Spool(folder), Spool(folder)
    mine.append(b"one")
    assert other.adopt() == 0
    assert drained(other) == []
    assert drained(mine) == [b"one"]
    mine.close()


def test_a_dead_process_segments_are_taken_over_oldest_first(folder):
    for line in (b"one", b"two"):
        dead = Spool(folder)
        dead.append(line)
        dead.forked()  # lets go of the files as a killed process does
    heir = Spool(folder)
    heir.append(b"three")
    assert heir.adopt() == 2
    assert heir.adopt() == 0
    assert drained(heir) == [b"one", b"two", b"three"]
    heir.close()
    assert list(folder.iterdir()) == []


def test_an_empty_segment_of_a_dead_process_is_removed(folder):
    dead = Spool(folder)
    dead.append(b"one")
    drained(dead)
    dead.forked()
    heir = Spool(folder)
    assert heir.adopt() == 0
    assert list(folder.iterdir()) == []


def test_close_keeps_what_is_pending(folder):
    spool = Spool(folder)
    spool.append(b"one")
    spool.close()
    heir = Spool(folder)
    assert heir.adopt() == 1
    assert drained(heir) == [b"one"]
    heir.close()


def test_a_segment_that_vanishes_before_it_is_taken_is_let_be(folder, monkeypatch):
    dead = Spool(folder)
    dead.append(b"one")
    dead.forked()
    (path,) = folder.iterdir()
    heir = Spool(folder)
    monkeypatch.setattr(Path, "glob", lambda *_: [path, folder / "gone.spool"])
    faster = Spool(folder)
    assert faster.adopt() == 1
    path.rename(folder / "moved")
    path.write_bytes(b"another\n")
    real = os.open
    monkeypatch.setattr(os, "open", lambda file, *rest: real(folder / "moved", *rest))
    faster.forked()
    assert heir.adopt() == 0


def test_no_folder_holds_nothing(folder):
    assert Spool(folder).adopt() == 0
    assert Spool(folder).read() == ([], 0)


def test_a_line_torn_by_a_crash_does_not_spoil_others(folder):
    folder.mkdir()
    (folder / "1.spool").write_bytes(b"whole\ntor")
    (folder / "2.spool").write_bytes(b"t")
    spool = Spool(folder)
    assert spool.adopt() == 2
    assert drained(spool) == [b"whole", b"tor", b"t"]
    spool.close()
    assert list(folder.iterdir()) == []


def test_a_short_write_is_mended_by_the_next_line(folder, monkeypatch):
    spool = Spool(folder)
    spool.append(b"first")
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:3]))
    assert not spool.append(b"second")
    monkeypatch.undo()
    assert spool.append(b"third")
    assert drained(spool) == [b"first", b"sec", b"third"]
    assert spool.dropped == 1
    spool.close()


def test_a_torn_line_at_the_end_of_a_live_segment_waits(folder, monkeypatch):
    spool = Spool(folder)
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:3]))
    assert not spool.append(b"second")
    assert spool.read() == ([], 0)
    spool.close()


@pytest.mark.parametrize("call", ["write", "open"])
def test_a_full_disk_drops_and_counts(folder, monkeypatch, call):
    def full(*_rest):
        raise OSError(28, "No space left on device")

    spool = Spool(folder)
    monkeypatch.setattr(os, call, full)
    assert not spool.append(b"one")
    assert spool.dropped == 1
    monkeypatch.undo()
    assert spool.append(b"two")
    assert drained(spool) == [b"two"]
    spool.close()


def test_a_full_spool_drops_the_newest(folder):
    spool = Spool(folder, max_bytes=2**16)
    lines = numbered(1_000)
    kept = [line for line in lines if spool.append(line)]
    assert spool.dropped == len(lines) - len(kept) > 0
    assert spool.pending_bytes <= 2**16
    assert drained(spool) == lines[: len(kept)] == kept
    assert spool.append(b"room again")
    spool.close()


def test_a_full_spool_may_drop_the_oldest(folder):
    spool = Spool(folder, max_bytes=2**16, when_full="drop_oldest")
    lines = numbered(1_000)
    assert all(spool.append(line) for line in lines)
    assert 0 < spool.pending_bytes <= 2**16
    kept = drained(spool)
    assert kept == lines[spool.dropped :]
    assert spool.dropped == len(lines) - len(kept) > 0
    spool.close()


def test_what_is_being_read_is_not_dropped(folder):
    spool = Spool(folder, max_bytes=2**16, when_full="drop_oldest")
    lines = numbered(2_000)
    spool.append(lines[0])
    some, mark = spool.read()
    for line in lines[1:]:
        spool.append(line)
    spool.done(mark)
    kept = drained(spool)
    assert some == lines[:1]
    assert kept[0] == lines[1]
    assert len(kept) + 1 + spool.dropped == len(lines)
    spool.close()


def test_sync_reaches_the_disk_without_the_lock(folder, monkeypatch):
    spool = Spool(folder)
    spool.sync()
    spool.append(b"one")
    synced = []
    monkeypatch.setattr(os, "fdatasync", lambda fd: synced.append(spool.append(b"meanwhile")))
    spool.sync()
    assert synced == [True]
    spool.close()


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 3_000)),
        st.tuples(st.just("drain"), st.integers(100, 20_000)),
        st.tuples(st.just("read"), st.integers(100, 20_000)),
        st.tuples(st.just("killed"), st.just(0)),
        st.tuples(st.just("closed"), st.just(0)),
    ),
    max_size=60,
)


@given(ACTIONS)
def test_no_line_is_lost_whatever_happens(actions):
    with tempfile.TemporaryDirectory() as name:
        spool, sent, got = Spool(Path(name), max_bytes=2**22), [], []
        for what, size in actions:
            if what == "append":
                line = f"{len(sent)}".rjust(size, "x").encode()
                assert spool.append(line)
                sent.append(line)
            elif what == "read":
                got += spool.read(max(size, 3_100))[0]
            elif what == "drain":
                got += drained(spool, max(size, 3_100))
            else:
                spool.forked() if what == "killed" else spool.close()
                spool = Spool(Path(name), max_bytes=2**22)
                spool.adopt()
        got += drained(spool)
        spool.close()
        assert set(got) == set(sent)
        assert list(Path(name).iterdir()) == []
