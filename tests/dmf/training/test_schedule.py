"""Learning rate, temperature and averaging decay against closed forms and PyTorch's own schedulers."""

import math

import pytest
import torch
from tiny_run import tiny_config, tiny_trainer, to_end
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

from dmf.dynamic_conv import KernelAttention
from dmf.training.config import EMAConfig, ScheduleConfig
from dmf.training.schedule import ema_decay, learning_rate, temperature

PAPER = ScheduleConfig(epochs=470, warmup_epochs=20.0, final_lr=1e-5, temperature=30.0, temperature_epochs=10)


def test_learning_rate_is_pytorchs():
    steps, peak = 3, 2e-3
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    warm = LinearLR(optimizer, 1e-12, 1.0, 20 * steps)
    cosine = CosineAnnealingLR(optimizer, 450 * steps, PAPER.final_lr)
    reference = SequentialLR(optimizer, [warm, cosine], [20 * steps])
    for done in range(1, 470 * steps + 1):
        optimizer.step()
        reference.step()
        rate = learning_rate(PAPER, peak, done / steps)
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6, abs=1e-13)
        assert rate > 0
    assert rate == PAPER.final_lr


def test_learning_rate_at_its_corners():
    assert learning_rate(PAPER, 1.0, 20) == 1.0
    assert learning_rate(PAPER, 1.0, 10) == 0.5
    assert learning_rate(PAPER, 1.0, 245) == pytest.approx((1 + PAPER.final_lr) / 2, abs=1e-12)
    assert learning_rate(PAPER, 1.0, 132.5) == pytest.approx(
        PAPER.final_lr + (1 - PAPER.final_lr) * (1 + math.sqrt(0.5)) / 2, abs=1e-12
    )
    assert learning_rate(ScheduleConfig(epochs=3), 1.0, 1e-9) == pytest.approx(1)  # no warm-up


def test_temperature_reaches_1_and_stays():
    found = [temperature(PAPER, epoch) for epoch in range(470)]
    assert found[:10] == pytest.approx([30 - 2.9 * epoch for epoch in range(10)], abs=1e-12)
    assert found[10:] == [1.0] * 460
    assert found[9] > 3.8
    assert {temperature(ScheduleConfig(epochs=3), epoch) for epoch in range(3)} == {1.0}


@pytest.mark.parametrize("routing", ["sigmoid", "softmax"])
def test_every_kernel_attention_follows(routing):
    config = {"model": {"routing": routing}, "schedule": {"epochs": 5, "temperature": 3.0, "temperature_epochs": 3}}
    trainer, found = tiny_trainer(count=16, **config), []
    trainer.run(lambda: None, lambda *_: None, lambda row: found.append((row.temperature, buffers(trainer))))
    expected = [3.0, 3.0 - 2 / 3, 3.0 - 4 / 3, 1.0, 1.0]
    assert [t for t, _ in found] == pytest.approx(expected)
    for value, (_, (model, average)) in zip(expected, found, strict=True):
        assert len(model) == 1 and model == average
        assert model.pop() == pytest.approx(value)
    assert buffers(trainer) == ({1.0}, {1.0})


def buffers(trainer):
    """The temperatures of the model's kernel attentions and of the average's."""
    return tuple(
        {m.temperature.item() for m in model.modules() if isinstance(m, KernelAttention)}
        for model in (trainer.model, trainer.average.module)
    )


def test_the_optimizer_follows():
    trainer = tiny_trainer(sampler={"sizes": [16]})
    rates = []
    trainer.run(lambda: None, lambda *_: rates.append(trainer.optimizer.param_groups[0]["lr"]), lambda _: None)
    config = tiny_config()
    assert len(rates) == 15  # 40 pictures in batches of 8, 3 epochs
    assert rates == [learning_rate(config.schedule, config.optimizer.lr, (i + 1) / 5) for i in range(15)]
    assert [row.lr for row in to_end(trainer).history] == rates[4::5]


def test_ema_decay():
    assert [ema_decay(EMAConfig(0.9995), n) for n in (1, 10**6)] == [0.9995, 0.9995]
    ramp = EMAConfig(0.9995, ramp=True)
    assert [ema_decay(ramp, n) for n in (1, 8, 90, 10**6)] == pytest.approx([2 / 11, 0.5, 0.91, 0.9995])
    assert ema_decay(ramp, 17988) < 0.9995 == ema_decay(ramp, 17991)
