import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentos.telemetry import segments
from bentos.telemetry.segments import MAGIC, MARKER, SegmentWriter, frame, parse, read_payloads

payloads = st.lists(st.binary(max_size=40), max_size=8)
# Payloads that look like our own framing are the hard ones.
nasty = st.lists(st.sampled_from([b"", MARKER, MAGIC, MARKER * 3, b"\xc1", b"x" * 30]), max_size=8)


class Record(msgspec.Struct, frozen=True):
    number: int


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.005)


def numbers(folder: Path) -> list[int]:
    return [
        msgspec.msgpack.decode(p, type=Record).number for _, frames in read_payloads(folder) for p in frames.payloads
    ]


@given(payloads | nasty)
def test_what_was_framed_is_parsed(records: list[bytes]) -> None:
    parsed = parse(MAGIC + b"".join(map(frame, records)))
    assert (list(parsed.payloads), parsed.corrupt, parsed.torn) == (records, 0, False)


@given(payloads | nasty, st.data())
def test_a_file_cut_anywhere_gives_a_prefix_of_its_records_and_no_damage(
    records: list[bytes], data: st.DataObject
) -> None:
    whole = MAGIC + b"".join(map(frame, records))
    cut = data.draw(st.integers(0, len(whole)))
    parsed = parse(whole[:cut])
    assert list(parsed.payloads) == records[: len(parsed.payloads)]
    assert parsed.corrupt == 0
    ends = [len(MAGIC + b"".join(map(frame, records[:n]))) for n in range(len(records) + 1)]
    assert len(parsed.payloads) == max((n for n, end in enumerate(ends) if end <= cut), default=0)
    assert parsed.torn == (cut not in (0, *ends))


@given(payloads.filter(bool), st.data())
def test_one_damaged_byte_costs_at_most_one_record(records: list[bytes], data: st.DataObject) -> None:
    whole = bytearray(MAGIC + b"".join(map(frame, records)))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    parsed = parse(bytes(whole))
    survivors = list(parsed.payloads)
    assert any(survivors == records[:i] + records[i + 1 :] for i in range(len(records))) or survivors == records
    if survivors != records:
        assert parsed.corrupt + parsed.torn == 1


@given(st.binary(max_size=300))
def test_any_bytes_are_parsed_without_an_error(data: bytes) -> None:
    parse(data)
    parse(MAGIC + data)


def test_records_come_back_in_order_and_none_is_lost(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, capacity=10_000)
    for i in range(5_000):
        assert writer.append(Record(i))
    writer.close()
    assert numbers(tmp_path) == list(range(5_000))
    counts = writer.counts()
    assert (counts.written, counts.dropped, counts.errors, counts.queued) == (5_000, 0, 0, 0)


def test_records_are_readable_while_the_writer_lives(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, capacity=10)
    writer.append(Record(1))
    until(lambda: numbers(tmp_path) == [1])
    assert [s.final for s in segments.segments(tmp_path)] == [False]
    writer.close()
    assert [s.final for s in segments.segments(tmp_path)] == [True]


def test_a_segment_that_has_grown_is_closed_and_the_next_one_begun(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, capacity=10, max_bytes=1)
    for i in range(3):
        writer.append(Record(i))
        until(lambda i=i: writer.counts().written == i + 1)
    assert [s.final for s in segments.segments(tmp_path)] == [True, True, False]
    writer.close()
    assert numbers(tmp_path) == [0, 1, 2]


def test_a_full_queue_drops_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SegmentWriter, "_start", lambda self: None)  # nothing drains the queue
    writer = SegmentWriter(tmp_path, capacity=2)
    assert [writer.append(Record(i)) for i in range(5)] == [True, True, False, False, False]
    assert writer.counts().dropped == 3
    assert "dropped" in (writer.healthy or "")
    monkeypatch.undo()  # the disk is back
    writer._start()
    until(lambda: writer.counts().written == 2)
    until(lambda: writer.healthy is None)
    assert writer.counts().dropped == 3  # the count stays
    writer.close()


def test_a_full_disk_reaches_no_caller_and_loses_nothing_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "RETRY_S", 0.01)
    full = True
    write = os.write

    def short_write(descriptor: int, data: bytes) -> int:
        if full and len(data) > 4 and not bytes(data).startswith(MAGIC):
            write(descriptor, data[:3])  # half of it gets out before the disk is full
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", short_write)
    writer = SegmentWriter(tmp_path, capacity=1_000)
    for i in range(10):
        assert writer.append(Record(i))
    until(lambda: writer.counts().errors >= 2)
    assert writer.healthy is not None
    assert "No space left" in writer.healthy
    full = False
    until(lambda: writer.counts().written == 10)
    writer.close()
    assert writer.healthy is None
    assert numbers(tmp_path) == list(range(10))
    assert all(frames.corrupt == 0 and not frames.torn for _, frames in read_payloads(tmp_path))


def test_a_disk_that_stays_full_counts_what_is_lost_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", no_room)
    writer = SegmentWriter(tmp_path, capacity=1_000)
    for i in range(10):
        writer.append(Record(i))
    writer.close()
    assert writer.counts().dropped == 10
    assert not writer.append(Record(11))


def test_a_home_deleted_under_the_writer_is_made_anew(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path / "log", capacity=10)
    writer.append(Record(1))
    until(lambda: writer.counts().written == 1)
    for path in sorted((tmp_path / "log").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    writer.append(Record(2))
    until(lambda: writer.counts().written == 2)
    writer.append(Record(3))
    writer.close()
    # The batch that finds the file gone begins a new one.
    assert numbers(tmp_path / "log") == [2, 3]


def test_a_killed_process_leaves_whole_records_in_a_final_segment(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib, msgspec\n"
        "from bentos.telemetry.segments import SegmentWriter\n"
        "class Record(msgspec.Struct):\n    number: int\n"
        "writer = SegmentWriter(pathlib.Path(sys.argv[1]), capacity=10**6)\n"
        "i = 0\n"
        "while True:\n    writer.append(Record(i)); i += 1; time.sleep(0.0002)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    try:
        until(lambda: len(numbers(tmp_path)) > 100, 20)
        assert [s.final for s in segments.segments(tmp_path)] == [False]
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert [s.final for s in segments.segments(tmp_path)] == [True]
    found = numbers(tmp_path)
    assert found == list(range(len(found)))
