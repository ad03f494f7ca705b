"""A run's folder, from the command line: what is written, and what is said when it can't go on."""

import csv
import errno
import json
import tomllib

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New
from tiny_run import tiny_config, write_folder

import dmf
from dmf.training import cli, loop, state
from dmf.training.augment import eval_transform
from dmf.training.config import TrainingConfig
from dmf.training.data import load
from dmf.training.metrics import ClassificationMetrics, TensorBoard, write_curves


@pytest.fixture
def command(scratch, capfd):
    """`dmf-train` on a folder of tiny pictures -> exit code, stdout, stderr."""
    data = write_folder(scratch / "data")

    def run(*arguments, out="run", **changes):
        config = tiny_config(data=data | changes.pop("data", {}), **changes)
        (scratch / "run.toml").write_text(config.to_toml())
        code = cli.main([str(scratch / "run.toml"), "--out", str(scratch / out), "--device", "cpu", *arguments])
        return code, *capfd.readouterr()

    return run


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def events(folder):
    """(tag, step) -> value"""
    (path,) = folder.iterdir()
    reader, found = PyRecordReader_New(str(path)), {}
    while True:
        try:
            reader.GetNext()
        except Exception:  # its end
            return found
        event = Event.FromString(reader.record())
        found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}


def test_a_run(command, scratch):
    code, out, err = command()
    assert code == 0
    run, config = scratch / "run", tiny_config(data={"name": "folder", "path": str(scratch / "data")})
    assert {path.name for path in run.iterdir()} == {
        "state.pt",
        "config.toml",
        "metrics.csv",
        "tensorboard",
        "curves.png",
        "model.safetensors",
        "summary.json",
    }
    assert TrainingConfig.from_dict(tomllib.loads((run / "config.toml").read_text())) == config
    assert (run / "config.toml").read_text() in err  # printed back
    assert [line.partition(":")[0] for line in err.splitlines() if line.startswith("epoch ")] == [
        "epoch 1/3",
        "epoch 2/3",
        "epoch 3/3",
    ]

    table = rows(run / "metrics.csv")
    assert [row["epoch"] for row in table] == ["1", "2", "3"]
    assert [float(row["temperature"]) for row in table] == [4.0, 2.5, 1.0]
    history = state.load(run / "state.pt")["history"]
    assert [{k: str(v) for k, v in row.items()} for row in history] == table
    curves = events(run / "tensorboard")
    assert len(curves) == 3 * (len(table[0]) - 1)
    for row in history:
        for tag in row.keys() - {"epoch"}:
            assert curves[tag, row["epoch"]] == pytest.approx(row[tag], rel=1e-6)
    with Image.open(run / "curves.png") as image:
        assert image.size == (1200, 800)
        assert len(image.convert("RGB").getcolors(1 << 20)) > 10

    summary = json.loads((run / "summary.json").read_text())
    assert json.loads(out) == {k: v for k, v in summary.items() if k != "config"}
    assert TrainingConfig.from_dict(summary["config"]) == config
    assert summary["heldout_images"] == 20 and summary["train_images"] == 40 and summary["unreadable_images"] == 0
    assert summary["torch"] == torch.__version__ and summary["threads"] == 1


def test_the_model_that_is_kept(command, scratch):
    """Its accuracy and loss, worked out again picture by picture from the file alone."""
    assert command(optimizer={"lr": 0.02}, schedule={"epochs": 8})[0] == 0
    model = dmf.load_checkpoint(scratch / "run" / "model.safetensors")
    heldout = load(tiny_config(data={"name": "folder", "path": str(scratch / "data")}).data).heldout
    with torch.no_grad():
        logits = torch.cat([model(eval_transform(heldout.picture(i), 16)[None]) for i in range(len(heldout))])
    labels, last = torch.tensor(heldout.labels), rows(scratch / "run" / "metrics.csv")[-1]
    summary = json.loads((scratch / "run" / "summary.json").read_text())
    assert summary["heldout_correct"] == (logits.argmax(1) == labels).sum().item() > 12
    assert float(last["heldout_loss"]) == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    live = state.load(scratch / "run" / "state.pt")["model"]
    assert not torch.equal(model.head.fc2.weight, live["head.fc2.weight"])  # it is the average, not the last weights
    model.set_temperature(5)
    with torch.no_grad():
        other = torch.cat([model(eval_transform(heldout.picture(i), 16)[None]) for i in range(len(heldout))])
    assert (other - logits).abs().max() > 1e-4


def test_an_existing_run(command, scratch):
    assert command("--quiet")[0] == 0
    before = (scratch / "run" / "state.pt").read_bytes()
    code, out, err = command("--quiet")
    assert code == 2 and not out
    assert err == (
        f"dmf-train: error: {scratch}/run holds a run already (state.pt); add --resume to go on with it, "
        "or choose another --out\n"
    )
    code, _, err = command("--quiet", "--resume", optimizer={"lr": 0.1})
    assert code == 2
    assert err == "dmf-train: error: the checkpoint is of another config: optimizer.lr (0.005, now 0.1)\n"
    assert (scratch / "run" / "state.pt").read_bytes() == before
    code, _, err = command("--quiet", "--resume", out="none")
    assert code == 2 and "no such checkpoint, so there is nothing to resume; start without --resume" in err
    assert not (scratch / "none").exists()
    code, out, err = command("--quiet", "--resume")  # a finished run: its results again
    assert code == 0 and err == "" and json.loads(out)["epochs"] == 3
    assert len(rows(scratch / "run" / "metrics.csv")) == 3
    assert len({step for _, step in events(scratch / "run" / "tensorboard")}) == 3


def test_a_loss_that_is_not_finite(command, scratch, monkeypatch):
    step = loop.Trainer.step

    def poison(trainer, batches, lr):
        if trainer.at.epoch == 1:
            trainer.model.head.fc2.bias.data.fill_(float("nan"))
        return step(trainer, batches, lr)

    monkeypatch.setattr(loop.Trainer, "step", poison)
    code, _, err = command("--quiet")
    steps = state.load(scratch / "run" / "state.pt")["position"]["steps"]
    assert code == 6 and steps > 1
    assert err == (
        f"dmf-train: error: the loss is not finite at step {steps + 1}, epoch 2; the last good checkpoint is "
        f"{scratch}/run/state.pt (step {steps}); begin a new run with a lower optimizer.lr or a clip\n"
    )
    assert not (scratch / "run" / "model.safetensors").exists()
    monkeypatch.undo()
    assert command("--quiet", "--resume")[0] == 0  # that checkpoint is good
    assert len(rows(scratch / "run" / "metrics.csv")) == 3


@pytest.mark.parametrize("file", ["state.pt", "metrics.csv", "model.safetensors"])
def test_a_full_disk(file, command, scratch, monkeypatch):
    if file == "model.safetensors":
        monkeypatch.setattr(dmf, "save_checkpoint", full)
    else:
        write, written = state.write_whole, []

        def write_whole(path, content):
            written.append(path.name)
            if path.name == file and written.count(file) == 3:
                full(path)
            write(path, content)

        monkeypatch.setattr(state, "write_whole", write_whole)
        monkeypatch.setattr("dmf.training.metrics.write_whole", write_whole)
    code, _, err = command("--quiet")
    steps = state.load(scratch / "run" / "state.pt")["position"]["steps"]
    assert code == 6
    assert err == (
        f"dmf-train: error: {scratch}/run/{file}: No space left on device; the last good checkpoint is "
        f"{scratch}/run/state.pt (step {steps}); go on from it with --resume\n"
    )
    monkeypatch.undo()
    assert command("--quiet", "--resume")[0] == 0
    assert (scratch / "run" / "summary.json").exists() and len(rows(scratch / "run" / "metrics.csv")) == 3


def full(*arguments):
    path = next(a for a in arguments if hasattr(a, "suffix"))
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


def test_a_disk_that_is_full_from_the_start(command, scratch, monkeypatch):
    monkeypatch.setattr(state, "write_whole", lambda path, _: full(path))
    code, _, err = command("--quiet")
    assert code == 6
    assert err == (
        f"dmf-train: error: {scratch}/run/config.toml: No space left on device; there is no checkpoint yet\n"
    )
    (scratch / "file").write_text("")
    code, _, err = command("--quiet", out="file")
    assert code == 2 and err == f"dmf-train: error: File exists: {scratch}/file\n"


def test_unreadable_pictures(command, scratch):
    broken = scratch / "data" / "train" / "lying" / "01.png"
    broken.write_bytes(broken.read_bytes()[:60])
    code, _, err = command("--quiet", data={"unreadable": "fail"})
    assert code == 2 and err.count("\n") == 1 and str(broken) in err
    code, out, err = command(data={"unreadable": "skip"}, out="skipping")
    assert code == 0 and json.loads(out)["unreadable_images"] == 1
    assert err.count("skipped (1 so far): ") == 1 and str(broken) in err


def test_bad_arguments(command, scratch):
    for arguments, message in (
        (["--set", "optimizer.lr=-1"], "[optimizer] lr is -1.0; it must be a positive number"),
        (["--set", "augment.flop=1"], "[augment] has no field 'flop'"),
        (["--set", f"data.path={scratch}/nowhere"], f"{scratch}/nowhere/train: no such folder"),
        (["--resum"], "unknown argument '--resum'; did you mean '--resume'?"),
        (["--set", "sampler.batch_size=64"], "40 training pictures are fewer than one batch of 64"),
        (["--set", "sampler.accumulate=6", "--set", "sampler.batch_size=48"], "an epoch has"),
    ):
        code, out, err = command("--quiet", *arguments, out=f"run{message}"[:9].replace("/", ""))
        assert code == 2 and not out and err.startswith(f"dmf-train: error: {message}") and err.count("\n") == 1, err
    for split in ("train", "val"):
        (scratch / "data" / split / "lying").rename(scratch / split)
    assert "one class, 'upright', in it" in command("--quiet", out="other")[2]


def test_history_of_one_epoch(scratch):
    row = ClassificationMetrics(1, 2, 3.0, 4.0, 5.0, 0.6, 7.0, 0.8, 9, 10, 11.0, 12.0)
    write_curves(scratch / "curves.png", [row], "one")
    assert Image.open(scratch / "curves.png").size == (1200, 800)
    board = TensorBoard(scratch / "tensorboard", [row])
    board.close()
    TensorBoard(scratch / "tensorboard", [row]).close()  # begun anew, not appended to
    assert events(scratch / "tensorboard")["heldout_correct", 1] == 9
    assert len(events(scratch / "tensorboard")) == 11
