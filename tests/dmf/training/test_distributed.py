"""Two processes over gloo against one with twice the batch, in float64, and batch norm over both against PyTorch's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_run import ALONE, tensors, tiny_config, tiny_splits, write_folder
from torch import nn
from two_processes import CASES, outcome

import dmf
from dmf.training import distributed, loop
from dmf.training.distributed import JointBatchNorm, Processes, join_batch_norms, joined
from runtime.errors import UsageError

TOLERANCE = 1e-9  # float64; Adam divides by the root of tiny gradients, so it is not 1e-15


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What two processes of torchrun left."""
    out = tmp_path_factory.mktemp("distributed")
    write_folder(out / "data")
    broken = out / "data" / "train" / "lying" / "01.png"
    broken.write_bytes(broken.read_bytes()[:100])
    script = Path(__file__).with_name("two_processes.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script, out]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def largest_difference(a, b) -> float:
    a, b = ({k: v for k, v in tensors(x).items() if v.is_floating_point()} for x in (a, b))
    assert a.keys() == b.keys() and len(a) > 100
    assert all(v.dtype == torch.float64 or "temperature" in k for k, v in a.items())
    return max((a[k] - b[k]).abs().max().item() for k in a)


@pytest.mark.parametrize("name", CASES)
def test_two_processes_are_one(name, folder):
    two = [torch.load(folder / f"{name} {rank}.pt") for rank in (0, 1)]
    one = outcome(name, ALONE)
    differences = [largest_difference(one[part], two[0][part]) for part in ("model", "average")]
    if name == "own batch norm":
        assert min(differences) > 1e-3
        return
    assert max(differences) < TOLERANCE
    assert largest_difference(two[0]["model"], two[1]["model"]) < TOLERANCE
    for a, b in zip(one["history"], two[0]["history"], strict=True):
        for column in a.keys() - {"images_per_second", "seconds"}:
            assert a[column] == pytest.approx(b[column], rel=0, abs=TOLERANCE), column
    assert two[0]["history"][-1]["heldout_images"] == 40
    other = outcome("accumulated" if name == "plain" else "plain", ALONE)
    assert largest_difference(one["model"], other["model"]) > 1e-3


def test_a_whole_run(folder):
    summary = json.loads((folder / "run" / "summary.json").read_text())
    assert summary["processes"] == 2 and summary["unreadable_images"] == 1
    assert dmf.load_checkpoint(folder / "run" / "model.safetensors").config.num_classes == 2
    assert len((folder / "run" / "metrics.csv").read_text().splitlines()) == 4


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3, 4)])
def test_joint_batch_norm_alone_is_batch_norm(shape, monkeypatch):
    monkeypatch.setattr(distributed.dist, "all_reduce", lambda _: None)
    torch.manual_seed(0)
    reference = nn.BatchNorm1d(5).double() if len(shape) == 2 else nn.BatchNorm2d(5).double()
    with torch.no_grad():
        for tensor in (*reference.parameters(), reference.running_mean, reference.running_var):
            tensor.uniform_(0.5, 2)
    joint = nn.Sequential(nn.BatchNorm2d(5)).double()
    joint[0].load_state_dict(reference.state_dict())
    join_batch_norms(joint, torch.device("cpu"))
    assert isinstance(joint[0], JointBatchNorm)
    inputs = [torch.randn(shape, dtype=torch.float64).requires_grad_() for _ in range(2)]
    inputs[1].data = inputs[0].data.clone()
    upstream = torch.randn(shape, dtype=torch.float64)
    outputs = [layer(x) for layer, x in zip((reference, joint), inputs, strict=True)]
    for y in outputs:
        (y * upstream).sum().backward()
    torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=1e-12)
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=0, atol=1e-12)
    for a, b in zip(reference.parameters(), joint.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=1e-12)
    for key, value in reference.state_dict().items():
        torch.testing.assert_close(value, joint.state_dict()[f"0.{key}"], rtol=0, atol=1e-12)
    x = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(joint.eval()(x), reference.eval()(x), rtol=0, atol=1e-12)
    assert (joint.train()(x) - joint.eval()(x)).abs().max() > 1e-3


def test_joining_keeps_the_model():
    model = dmf.seed_weights(dmf.create_model("dmf_nano"), 0)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        logits = model(x)
        join_batch_norms(model, torch.device("cpu"))
        assert torch.equal(model(x), logits)
    assert model.state_dict().keys() == before.keys()
    assert not any(type(m) in (nn.BatchNorm1d, nn.BatchNorm2d) for m in model.modules())


def test_refused():
    config = tiny_config(sampler={"batch_size": 16, "accumulate": 2})
    assert loop.Trainer(config, tiny_splits(), ALONE).batch_size == 8
    with pytest.raises(UsageError, match=r"batch_size 16 can't be shared by 3 processes that accumulate 2$"):
        loop.Trainer(config, tiny_splits(), Processes(torch.device("cpu"), 0, 3))
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match=r"^--device cuda: this machine.*; give --device cpu$"), joined("cuda"):
            pass
