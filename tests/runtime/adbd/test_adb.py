"""runtime/adb.py against the real adb client and a real adbd (see conftest.py); a test with a stub for adb says so."""

import hashlib
import os
import threading
import time
from pathlib import PurePosixPath

import numpy as np
import pytest

from runtime import adb
from runtime.adb import OutOfSpace, Phone, Unplugged, phones
from runtime.errors import RunnerError

FOLDER = PurePosixPath("/data/local/tmp")
PIECE_BYTES = 100_000


@pytest.fixture
def phone(device):
    (phone,) = phones()
    return phone


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Four pieces and a bit, of noise."""
    monkeypatch.setattr(adb, "PIECE_BYTES", PIECE_BYTES)
    path = tmp_path / "model.tflite"
    path.write_bytes(np.random.default_rng(0).bytes(4 * PIECE_BYTES + 17))
    return path


@pytest.fixture
def appended(monkeypatch):
    """Where each piece began that was pushed."""
    starts = []
    append = Phone._append

    def recorded(self, local, start, there):
        starts.append(start)
        return append(self, local, start, there)

    monkeypatch.setattr(Phone, "_append", recorded)
    return starts


def on_device(device, name="model.tflite"):
    return device.root / "data" / "local" / "tmp" / name


def test_a_shell_tells_output_and_exit_code(phone):
    assert phone.serial == "127.0.0.1:5555"
    answer = phone.shell("echo out; echo err >&2; exit 7")
    assert (answer.stdout, answer.stderr, answer.code) == ("out\n", "err\n", 7)
    assert phone.shell("uname -m").stdout == "aarch64\n"
    assert phone.shell("printf 'no newline'").stdout == "no newline"
    assert phone.check("echo fine", "no") == "fine\n"
    with pytest.raises(RunnerError, match=r"127.0.0.1:5555: it can't be: .*No such file"):
        phone.check("ls /nowhere", "it can't be")
    assert phone.properties()["ro.product.model"] == "Double"


def test_a_file_is_pushed_once_and_pulled_unaltered(phone, file, device, appended, tmp_path):
    phone.push(file, FOLDER / "model.tflite")
    assert on_device(device).read_bytes() == file.read_bytes()
    assert device.files() == ["model.tflite"]
    phone.push(file, FOLDER / "model.tflite")
    assert appended == [0, 100_000, 200_000, 300_000, 400_000]

    on_device(device).write_bytes(file.read_bytes()[:-1] + b"x")  # as large, but another
    phone.push(file, FOLDER / "model.tflite")
    assert len(appended) == 10

    phone.pull(FOLDER / "model.tflite", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == file.read_bytes()
    with pytest.raises(RunnerError, match="can't pull /data/local/tmp/other"):
        phone.pull(FOLDER / "other", tmp_path / "other")


def test_names_with_spaces_and_empty_files(phone, device, tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    phone.push(tmp_path / "empty", FOLDER / "an 'empty' one")
    assert device.files() == ["an 'empty' one"]


@pytest.mark.parametrize(
    ("begun", "starts"),
    [
        (lambda content: content[:250_000], [250_000, 350_000]),  # the beginning: only the rest goes
        (lambda content: content, []),
        (lambda content: content[:-1] + b"x", [0, 100_000, 200_000, 300_000, 400_000]),  # another file's
        (lambda content: content + b"x", [0, 100_000, 200_000, 300_000, 400_000]),
    ],
)
def test_a_push_is_resumed_where_what_is_there_is_the_beginning(phone, file, device, appended, begun, starts):
    on_device(device, "model.tflite.part").write_bytes(begun(file.read_bytes()))
    phone.push(file, FOLDER / "model.tflite")
    assert appended == starts
    assert on_device(device).read_bytes() == file.read_bytes()
    assert device.files() == ["model.tflite"]


def test_what_arrives_altered_is_refused(phone, file, device, monkeypatch):
    whole = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(Phone, "_sha256", lambda self, path: whole[::-1])  # as the phone would hash other content
    with pytest.raises(RunnerError, match=r"model.tflite arrived altered; try another cable"):
        phone.push(file, FOLDER / "model.tflite")
    assert device.files() == []


def test_unplugged_in_the_middle_of_a_push_it_goes_on_where_it_was(phone, file, device, appended, monkeypatch):
    append = Phone._append

    def unplugging(self, local, start, there):
        if start == 200_000 and len(appended) == 2:
            device.unplug()
        return append(self, local, start, there)

    monkeypatch.setattr(Phone, "_append", unplugging)
    with pytest.raises(Unplugged, match=r"127.0.0.1:5555: the connection was lost"):
        phone.push(file, FOLDER / "model.tflite")
    assert not phone.wait(1)
    device.plug()
    assert phone.wait(10)
    phone.push(file, FOLDER / "model.tflite")
    assert appended == [0, 100_000, 200_000, 200_000, 300_000, 400_000]
    assert on_device(device).read_bytes() == file.read_bytes()


def test_unplugged_in_the_middle_of_a_large_piece(phone, device, tmp_path):
    """adbd is killed while bytes are under way, not between two commands."""
    path = tmp_path / "large"
    path.write_bytes(np.random.default_rng(0).bytes(200 << 20))
    piece = on_device(device, "large.part.piece")

    def pull_the_plug():
        while not (piece.exists() and piece.stat().st_size > 0):
            time.sleep(0.001)
        device.unplug()

    thread = threading.Thread(target=pull_the_plug)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adb, "PIECE_BYTES", 200 << 20)
        with pytest.raises(Unplugged):
            phone.push(path, FOLDER / "large")
    thread.join()
    device.plug()
    assert 0 < piece.stat().st_size < 200 << 20


def test_unplugged_while_a_command_runs(phone, device):
    timer = threading.Timer(0.5, device.unplug)
    timer.start()
    with pytest.raises(Unplugged):
        phone.shell("sleep 30")
    timer.join()
    device.plug()
    assert phone.shell("echo again").stdout == "again\n"


def test_a_full_phone_keeps_nothing(phone, file, device):
    device.room("256K")
    with pytest.raises(OutOfSpace, match=r"127.0.0.1:5555: can't .*No space left on device"):
        phone.push(file, FOLDER / "model.tflite")
    assert device.files() == []


def test_a_command_has_its_time(phone):
    start = time.monotonic()
    with pytest.raises(RunnerError, match=r"shell .*: no answer in 1 s"):
        phone.shell("sleep 30", timeout_s=1)
    assert time.monotonic() - start < 10


def test_a_closed_phone_ends_what_runs_and_does_no_more(phone):
    threading.Timer(0.5, phone.close).start()
    start = time.monotonic()
    with pytest.raises(RunnerError):
        phone.shell("sleep 30")
    with pytest.raises(RunnerError, match="interrupted"):
        phone.shell("echo")
    assert time.monotonic() - start < 10
    assert phone.reopened().shell("echo open").stdout == "open\n"


def test_no_phone_and_another_phone(device):
    with pytest.raises(RunnerError, match=r"adb sees no phone 0123; it sees 127.0.0.1:5555"):
        phones("0123")
    assert [phone.serial for phone in phones("all")] == ["127.0.0.1:5555"]
    device.unplug()
    device.adb("disconnect")
    with pytest.raises(RunnerError, match="adb sees no phone: plug one in and enable USB debugging"):
        phones()
    device.plug()


def test_no_adb(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("ANDROID_HOME", raising=False)
    with pytest.raises(RunnerError, match="no adb on PATH, nor under ANDROID_HOME: install Android's platform-tools"):
        phones()


@pytest.mark.parametrize(
    ("listed", "select", "message"),
    [
        ("A\tunauthorized", None, "A does not trust this computer yet: unlock it and allow USB debugging"),
        ("A\toffline", None, "A is offline: unplug it"),
        ("A\tno permissions (user in plugdev group); see [x]", None, "A may not be opened by this user"),
        ("A\trecovery", None, "A is in recovery mode"),
        ("A\trescue", None, "A is in the state 'rescue', it must be device"),
        ("A\tdevice\nB\tdevice", None, r"adb sees 2 phones: give --on android:SERIAL \(A, B\) or android:all"),
        ("adb-1 (2)._adb-tls-connect._tcp\toffline", None, r"^adb-1 \(2\)._adb-tls-connect._tcp is offline"),
        ("A\tdevice\nB\tunauthorized", "B", "B does not trust"),
        ("A\tdevice\nB\tunauthorized", "A", None),
    ],
)
def test_states_of_a_phone(listed, select, message, monkeypatch, tmp_path):
    """A stub for adb: it lists phones in states that an emulated one can't be in, in the client's own words."""
    (tmp_path / "adb").write_text(f"#!/bin/sh\nprintf 'List of devices attached\\n{listed}\\n\\n'\n")
    (tmp_path / "adb").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    if message is None:
        assert [phone.serial for phone in phones(select)] == ["A"]
    else:
        with pytest.raises(RunnerError, match=message):
            phones(select)


def test_of_all_phones_those_that_cannot_be_used_say_why(monkeypatch, tmp_path):
    """A stub for adb, as above."""
    (tmp_path / "adb").write_text("#!/bin/sh\nprintf 'List of devices attached\\nA\\tdevice\\nB\\tunauthorized\\n'\n")
    (tmp_path / "adb").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    a, b = phones("all")
    assert (a.serial, a.problem) == ("A", None)
    assert b.problem.startswith("B does not trust this computer yet")


def test_answers_that_make_no_sense(phone, file, device):
    """No double: what the phone's own tools are is replaced."""
    for name, script in (("stat", "echo garbage"), ("sha256sum", "exit 0")):
        (device.root / "doubles" / name).write_text(f"#!/bin/sh\n{script}\n")
        (device.root / "doubles" / name).chmod(0o755)
    try:
        with pytest.raises(RunnerError, match="arrived altered"):
            phone.push(file, FOLDER / "model.tflite")
        (device.root / "doubles" / "sha256sum").write_text("#!/bin/sh\nexit 127\n")
        with pytest.raises(RunnerError, match="has no sha256sum"):
            phone.push(file, FOLDER / "model.tflite")
    finally:
        for name in ("stat", "sha256sum"):
            (device.root / "doubles" / name).unlink()
