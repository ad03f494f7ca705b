"""Which parameters decay, and the moving average, both against closed forms."""

import re

import numpy as np
import pytest
import torch
from tiny_run import tiny_config, tiny_trainer, to_end

import dmf
from dmf.training.config import EMAConfig, OptimizerConfig
from dmf.training.distributed import join_batch_norms
from dmf.training.optimizer import adamw, averaged, decayed, undecayed

# by their names, where the code goes by the modules' types
UNDECAYED = re.compile(
    r"(^tokens|\.bias|(^|\.)(bn\d?|end_bn|norm\d?)\.weight|downsample\.1\.weight|grn\.(gamma|beta))$"
)


@pytest.mark.parametrize("variant", ["dmf_nano", "dmf_xxs"])
@pytest.mark.parametrize("joint", [False, True])
def test_norms_biases_and_tokens_do_not_decay(variant, joint):
    model = dmf.create_model(variant)
    if joint:
        join_batch_norms(model, torch.device("cpu"))
    named = dict(model.named_parameters())
    free, shrinking = {id(p) for p in undecayed(model)}, {id(p) for p in decayed(model)}
    assert len(free) + len(shrinking) == len(named) and not free & shrinking
    assert {n for n, p in named.items() if id(p) in free} == {n for n in named if UNDECAYED.search(n)}
    assert all(p.ndim > 1 for p in decayed(model))
    assert "blocks.0.dynamic_mobile.pw_conv1.kernel_bank" in {n for n, p in named.items() if id(p) in shrinking}


def test_decay_is_adamws():
    model = dmf.seed_weights(dmf.create_model("dmf_nano"), 0).double()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = adamw(model, OptimizerConfig(lr=0.01, weight_decay=0.3, betas=(0.8, 0.9)))
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    model.head.fc1.weight.grad.fill_(2.0)
    optimizer.step()
    for name, p in model.named_parameters():
        shrunk = before[name] * (1 if UNDECAYED.search(name) else 1 - 0.01 * 0.3)
        # Adam's first step is lr * g / (|g| + eps), whatever the betas
        expected = shrunk - (0.01 * 2 / (2 + 1e-8) if name == "head.fc1.weight" else 0)
        torch.testing.assert_close(p.detach(), expected, rtol=0, atol=1e-14)
    assert (model.head.fc2.weight - before["head.fc2.weight"]).abs().max() > 1e-6


@pytest.mark.parametrize("ramp", [False, True])
def test_the_average_is_its_closed_form(ramp):
    model = dmf.seed_weights(dmf.create_model("dmf_nano"), 0).double()
    average = averaged(model, EMAConfig(0.7, ramp))
    names = ("tokens", "head.fc2.weight", "stem.bn.running_mean", "stem.bn.running_var")
    seen = {name: [] for name in names}
    for n in range(6):
        torch.manual_seed(n)
        with torch.no_grad():
            for name in names:
                model.state_dict()[name].add_(torch.randn(model.state_dict()[name].shape, dtype=torch.float64))
                seen[name].append(model.state_dict()[name].numpy().copy())
        model.stem.bn.num_batches_tracked.fill_(100 + n)
        average.update_parameters(model)
    decays = [min(0.7, (1 + n) / (10 + n)) if ramp else 0.7 for n in range(6)]
    # weight of model k: what came in at k and was not forgotten after it; the first model came in whole
    weights = [(1 if k == 0 else 1 - decays[k]) * np.prod(decays[k + 1 :]) for k in range(6)]
    assert sum(weights) == pytest.approx(1)
    for name in names:
        expected = sum(w * x for w, x in zip(weights, seen[name], strict=True))
        found = average.module.state_dict()[name].numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
        assert np.abs(found - seen[name][-1]).max() > 1e-3
        assert np.abs(found - np.mean(seen[name], 0)).max() > 1e-3
    assert average.module.stem.bn.num_batches_tracked == 105
    assert not any(module.training for module in average.modules())


def test_a_run_averages_its_steps():
    trainer = tiny_trainer(ema={"decay": 0.5}, optimizer={"lr": 0.05})
    weights = []
    trainer.run(
        lambda: None, lambda *_: weights.append(trainer.model.head.fc2.weight.detach().double().clone()), lambda _: None
    )
    expected = weights[0]
    for w in weights[1:]:
        expected = 0.5 * expected + 0.5 * w
    found = trainer.average.module.head.fc2.weight.double()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert (found - weights[-1]).abs().max() > 1e-4
    assert trainer.average.n_averaged == len(weights)


def test_what_is_evaluated_is_the_average():
    trainer = to_end(tiny_trainer(optimizer={"lr": 0.05}))
    kept = trainer.evaluate()
    assert kept["heldout_loss"] == trainer.history[-1].heldout_loss
    trainer.average.module.load_state_dict(trainer.model.state_dict())
    assert trainer.evaluate()["heldout_loss"] != kept["heldout_loss"]
    assert tiny_config().ema.decay == 0.9
