"""The checkpoint of a run: whole or not there, and never executed."""

import os
import pickle
import resource
import signal
from pathlib import Path

import pytest
import torch

from dmf.training import state
from runtime.errors import UsageError

CONTENT = {"a": torch.arange(50_000.0), "b": {"c": [1, 2.5, "text", None]}}


def test_round_trip(scratch):
    state.save(scratch / "state.pt", CONTENT)
    found = state.load(scratch / "state.pt")
    assert torch.equal(found["a"], CONTENT["a"]) and found["b"] == CONTENT["b"]
    assert [path.name for path in scratch.iterdir()] == ["state.pt"]


def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def half(number):
    """In the middle of the write: half of it has reached the disk."""
    os.ftruncate(number, os.fstat(number).st_size // 2)
    kill()


def killed(write, patch) -> None:
    """`write()` in a process of its own, that `patch()` makes kill itself."""
    child = os.fork()
    if not child:
        patch()
        write()
        os._exit(1)  # never reached
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


MOMENTS = {
    "half": (lambda: setattr(os, "fsync", half), b"old"),
    "before the rename": (lambda: setattr(Path, "replace", kill), b"old"),
    "after the rename": (lambda: setattr(os, "close", kill), b"new"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_while_writing(moment, scratch):
    path, (patch, left) = scratch / "file", MOMENTS[moment]
    path.write_bytes(b"old" * 1000)
    killed(lambda: state.write_whole(path, b"new" * 1000), patch)
    assert path.read_bytes() == left * 1000
    if moment == "half":
        assert len((scratch / "file.partial").read_bytes()) == 1500
    state.write_whole(path, b"next")  # what is left of the killed one is in nobody's way
    assert [path.name for path in scratch.iterdir()] == ["file"]


def test_a_plain_write_would_not_do(scratch):
    path = scratch / "file"
    path.write_bytes(b"old" * 1000)

    def plain() -> None:
        with path.open("wb") as file:
            file.write(b"new" * 1000)
            file.flush()
            half(file.fileno())

    killed(plain, lambda: None)
    assert path.read_bytes() == b"new" * 500


def test_a_full_disk_leaves_the_old_file(scratch):
    path = scratch / "state.pt"
    state.save(path, CONTENT)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large.*state\.pt'$"):
            state.save(path, CONTENT | {"b": 3})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert os.listdir(scratch) == ["state.pt"]
    state.save(path, CONTENT | {"b": 3})
    assert state.load(path)["b"] == 3


class Runs:
    def __reduce__(self):
        return (os.mkdir, ("executed",))


def test_unusable_files(scratch, monkeypatch):
    monkeypatch.chdir(scratch)
    path = scratch / "state.pt"
    with pytest.raises(UsageError, match=r"state.pt: no such checkpoint, so there is nothing to resume"):
        state.load(path)
    state.save(path, CONTENT)
    whole = path.read_bytes()
    for broken in (b"", b"text", whole[:-1000], whole[: len(whole) // 2], pickle.dumps(Runs(), 2)):
        path.write_bytes(broken)
        with pytest.raises(UsageError, match=r"state.pt: damaged, or no checkpoint of a run"):
            state.load(path)
    torch.save({"x": Runs()}, path)
    with pytest.raises(UsageError, match=r"state.pt: damaged, or no checkpoint of a run"):
        state.load(path)
    assert not (scratch / "executed").exists()
    torch.save({"format": 0}, path)
    with pytest.raises(UsageError, match=r"state.pt: not a run's checkpoint of format 2"):
        state.load(path)
