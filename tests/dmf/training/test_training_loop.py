"""One step after another: learning, accumulating, stopping before a step that is not finite."""

import copy

import pytest
import torch
import torch.nn.functional as F
from tiny_run import ALONE, patterns, same_bits, tensors, tiny_config, tiny_splits, tiny_trainer, to_end

from dmf.training.data import Digits, Splits
from dmf.training.distributed import Processes
from dmf.training.loop import NotFinite, Trainer
from dmf.training.sampler import loader

STILL = {"model": {"dropout": 0.0, "drop_path": 0.0}, "augment": {"crop_scale": [1.0, 1.0], "flip": 0.0}}


@pytest.fixture
def double():
    """Networks and pictures in float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_overfits_one_batch():
    """Labels that have nothing to do with the pictures can only be learnt by heart."""
    config = tiny_config(
        **STILL
        | {
            "sampler": {"batch_size": 16, "sizes": [16]},
            "optimizer": {"lr": 0.02, "label_smoothing": 0.0},
            "schedule": {"epochs": 45, "warmup_epochs": 2},
        }
    )
    images = Digits(patterns(16)[0], [7 * i % 10 for i in range(16)])
    trainer = to_end(Trainer(config, Splits(images, images), ALONE))
    first, last = trainer.history[0], trainer.history[-1]
    assert first.train_loss > 2.2  # ten classes, none known
    assert last.train_loss < 0.1 and last.train_accuracy == 1
    assert (last.step, last.epoch) == (45, 45)


def first_batch(trainer):
    trainer.batches.set_epoch(0)
    return list(loader(trainer.splits.train, trainer.transform, trainer.batches, trainer.config.run.seed, 0))


def test_a_step_is_what_it_says(double):
    """Loss, gradient and its clipping against plain PyTorch on the same pictures."""
    smoothing = 0.3
    trainer = tiny_trainer(
        40, **STILL | {"sampler": {"sizes": [16]}, "optimizer": {"clip": 0.05, "label_smoothing": smoothing}}
    )
    images, labels = first_batch(trainer)[0]
    reference = copy.deepcopy(trainer.model)
    logits = reference(images)
    target = (1 - smoothing) * F.one_hot(labels, 10) + smoothing / 10
    loss = -(target * logits.log_softmax(1)).sum(1).mean()
    loss.backward()
    norm = sum(p.grad.square().sum() for p in reference.parameters()).sqrt().item()
    total, correct, count = trainer.step(iter([(images, labels)]), 1e-3)
    assert total / count == pytest.approx(loss.item(), abs=1e-12) and count == 8
    assert total / count != pytest.approx(F.cross_entropy(logits, labels).item(), abs=1e-6)
    assert correct == (logits.argmax(1) == labels).sum().item()
    for ours, theirs in zip(trainer.model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad * 0.05 / norm, rtol=1e-4, atol=1e-12)
    assert norm > 0.1 > 0.05  # it was clipped
    assert [group["lr"] for group in trainer.optimizer.param_groups] == [1e-3, 1e-3]


@pytest.mark.parametrize("frozen", [True, False])
def test_accumulated_batches_are_one_large_one(frozen, double):
    """Exactly so where batch norm doesn't look at the batch; where it does, it sees each accumulated one by itself."""
    large = tiny_trainer(40, **STILL | {"sampler": {"batch_size": 16, "sizes": [16]}})
    small = tiny_trainer(40, **STILL | {"sampler": {"batch_size": 16, "accumulate": 2, "sizes": [16]}})
    images, labels = first_batch(large)[0]
    for trainer in (large, small):
        trainer.model.train(not frozen)
    tallies = (
        large.step(iter([(images, labels)]), 1e-3),
        small.step(iter([(images[:8], labels[:8]), (images[8:], labels[8:])]), 1e-3),
    )
    gradients = [torch.cat([p.grad.flatten() for p in t.model.parameters()]) for t in (large, small)]
    difference = (gradients[0] - gradients[1]).abs().max()
    if frozen:
        assert difference < 1e-12 < 1e-3 < gradients[0].abs().max()
        assert tallies[0] == pytest.approx(tallies[1], abs=1e-12)
    else:
        assert difference > 1e-4


@pytest.mark.parametrize("poisoned", ["loss", "gradient"])
def test_stops_before_a_step_that_is_not_finite(poisoned):
    trainer = tiny_trainer()
    batches = first_batch(trainer)
    trainer.step(iter(batches), 1e-3)
    before = copy.deepcopy([trainer.optimizer.state_dict(), dict(trainer.model.named_parameters())])
    average = copy.deepcopy(trainer.average.state_dict())
    if poisoned == "loss":
        batches[0][0][0, 0, 0, 0] = float("nan")
    else:
        trainer.model.head.fc2.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(NotFinite, match=f"^the {poisoned} is not finite$"):
        trainer.step(iter(batches), 1e-3)
    assert same_bits(before, [trainer.optimizer.state_dict(), dict(trainer.model.named_parameters())])
    assert same_bits(average, trainer.average.state_dict())


def test_every_parameter_learns():
    trainer = tiny_trainer()
    before = tensors(copy.deepcopy(dict(trainer.model.named_parameters())))
    to_end(trainer)
    still = [k for k, p in tensors(dict(trainer.model.named_parameters())).items() if torch.equal(p, before[k])]
    assert still == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["off", "float16", "bfloat16"])
def test_on_a_gpu(precision):
    config = tiny_config(run={"mixed_precision": precision, "checkpoint_steps": 1}, schedule={"epochs": 8})
    trainer, kept = Trainer(config, tiny_splits(), Processes(torch.device("cuda", 0))), []
    seen = set()
    trainer.model.head.fc2.register_forward_hook(lambda _m, _i, logits: seen.add(logits.dtype))
    to_end(trainer, lambda: kept.append(copy.deepcopy(trainer.state())))
    assert seen == {{"off": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[precision]}
    assert trainer.history[-1].train_loss < trainer.history[0].train_loss
    again = Trainer(config, tiny_splits(), Processes(torch.device("cuda", 0)))
    again.resume(kept[len(kept) // 2])
    for part in ("model", "average"):
        assert same_bits(to_end(again).state()[part], trainer.state()[part])
