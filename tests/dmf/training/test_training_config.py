"""The run's file: what is refused and how, and that it is printed back whole."""

import json
import tomllib
from dataclasses import fields

import pytest
from tiny_run import TINY, tiny_config

import dmf
from dmf.training.config import CONFIGS, TrainingConfig, differences, read
from runtime.errors import UsageError

SHIPPED = sorted(path.stem for path in CONFIGS.glob("*.toml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_printed_back(name):
    config = read(name)
    values = tomllib.loads(config.to_toml())
    assert TrainingConfig.from_dict(values) == config
    assert TrainingConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    missing = {"path"} if config.data.path is None else set()
    for section in values.keys() - {"model"}:
        assert values[section].keys() == {f.name for f in fields(getattr(config, section))} - missing
    values["optimizer"]["lr"] *= 2
    assert TrainingConfig.from_dict(values) != config


@pytest.mark.parametrize("variant", ["xxs", "xs", "s"])
def test_the_papers_recipe(variant):
    config = read(f"dmf_{variant}_imagenet")
    assert config.model.network(1000) == dmf.VARIANTS[f"dmf_{variant}"]
    assert config.model.network(1000).drop_path == 0.1
    assert config.sampler.batch_size == 1024
    assert (config.schedule.epochs, config.schedule.warmup_epochs) == (470, 20)
    assert (config.ema.decay, config.ema.ramp) == (0.9995, False)
    assert config.optimizer.label_smoothing == 0.1
    assert config.augment.flip == 0.5 and config.augment.erase > 0 and config.augment.rand_augment_ops > 0
    assert len(config.sampler.sizes) > 1 and 224 in config.sampler.sizes
    assert config.schedule.temperature > 1 and config.schedule.temperature_epochs > 0


def test_changes():
    config = read(
        "dmf_nano_digits",
        ["optimizer.lr=1e-2", "model.routing=softmax", "sampler.sizes=[96]", "ema.ramp=false", "schedule.epochs = 70"],
    )
    assert config.optimizer.lr == 0.01 and config.sampler.sizes == (96,) and config.ema.ramp is False
    assert config.model.network(10).routing == "softmax"
    found = {line.partition(" ")[0] for line in differences(read("dmf_nano_digits"), config)}
    assert found == {"sampler.sizes", "optimizer.lr", "schedule.epochs", "ema.ramp", "model.routing"}
    assert differences(config, config) == []


def test_what_may_change_on_resume():
    elsewhere = (
        tiny_config(data={"name": "folder", "path": "a"}),
        tiny_config(data={"name": "folder", "path": "b", "workers": 3}),
    )
    assert elsewhere[0] != elsewhere[1]
    assert differences(*elsewhere) == []
    assert differences(tiny_config(), tiny_config(run={"seed": 1})) == ["run.seed (5, now 1)"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("optimizer.lr=0", r"\[optimizer\] lr is 0.0; it must be a positive number"),
        ("optimizer.lr=fast", r"\[optimizer\] lr is 'fast'; it must be a positive number"),
        ("optimizer.lr=nan", r"\[optimizer\] lr is nan; it must be"),
        ("optimizer.lr=true", r"\[optimizer\] lr is True; it must be"),
        ("optimizer.betas=[0.9]", r"\[optimizer\] betas is \[0.9\]; it must be two numbers"),
        ("optimizer.betas=[0.9,1]", r"\[optimizer\] betas is \[0.9, 1.0\]; it must be two numbers from 0 to below 1"),
        ("optimizer.weight=1", r"\[optimizer\] has no field 'weight'; known: lr, .*; did you mean 'weight_decay'\?"),
        ("optimiser.lr=1", r"no section \[optimiser\]; known: model, .*; did you mean 'optimizer'\?"),
        ("sampler.batch_size=1.5", r"\[sampler\] batch_size is 1.5; it must be a whole number, at least 2"),
        ("sampler.sizes=[40]", r"\[sampler\] sizes has 40; each must be a multiple of 32"),
        ("sampler.sizes=[64,64]", r"\[sampler\] sizes is \[64, 64\]; it must be a list of different positive sizes"),
        ("sampler.sizes=[640]", r"\[sampler\] batch_size \d+ leaves fewer than 2 pictures of 640 x 640 px"),
        ("sampler.accumulate=7", r"\[sampler\] batch_size \d+ can't be split into accumulate = 7"),
        ("data.name=mnist", r"\[data\] name is 'mnist'; it must be one of digits, folder"),
        ("data.name=folder", r"\[data\] name is 'folder', which needs path"),
        ("data.path=/x", r"\[data\] path is '/x', but name is 'digits'"),
        ("data.heldout_share=1", r"\[data\] heldout_share is 1.0; it must be above 0 and below 1"),
        ("augment.crop_scale=[0.9,0.5]", r"\[augment\] crop_scale is \[0.9, 0.5\]; it must be two numbers, 0 <"),
        ("augment.flip=2", r"\[augment\] flip is 2.0; it must be a number from 0 to 1"),
        ("schedule.warmup_epochs=1000", r"\[schedule\] warmup_epochs is 1000.0; it must be below epochs, \d+"),
        ("schedule.temperature_epochs=1000", r"\[schedule\] temperature_epochs is 1000; it must be below epochs"),
        (
            "schedule.temperature_epochs=0",
            r"\[schedule\] temperature is .* for temperature_epochs 0; annealing needs both",
        ),
        ("schedule.final_lr=9", r"\[schedule\] final_lr is 9.0; \[optimizer\] lr is only"),
        ("ema.decay=1", r"\[ema\] decay is 1.0; it must be at least 0 and below 1"),
        ("run.seed=-1", r"\[run\] seed is -1; it must be a whole number from 0"),
        ("run.mixed_precision=fp8", r"\[run\] mixed_precision is 'fp8'; it must be one of off, float16, bfloat16"),
        ("model.variant=dmf_nan", r"\[model\] variant is 'dmf_nan'; known: .*; did you mean 'dmf_nano'\?"),
        ("model.num_kernel=2", r"\[model\] has no field 'num_kernel'; .*; did you mean 'num_kernels'\?"),
        ("model.routing=hard", r"\[model\] routing is 'hard'; allowed: sigmoid, softmax"),
        ("model.num_classes=3", r"\[model\] num_classes is the data set's number of classes; leave it out"),
        ("model", r"--set model: give section.field=value"),
        ("lr=1", r"--set lr=1: give section.field=value"),
    ],
)
def test_refused(change, message):
    with pytest.raises(UsageError, match=f"^{message}") as caught:
        read("dmf_nano_digits", [change])
    assert "\n" not in str(caught.value)


def test_refused_files(scratch):
    with pytest.raises(UsageError, match=r"dmf_nano_digit: no such file, .*; did you mean 'dmf_nano_digits'\?"):
        read("dmf_nano_digit")
    broken = scratch / "broken.toml"
    broken.write_text("[model\n")
    with pytest.raises(UsageError, match=r"broken.toml: not TOML: "):
        read(str(broken))
    for text, message in (
        ("", r"\[model\] variant is missing"),
        ("model = 3", r"model is 3; it must be a section, \[model\]"),
        ('[model]\nvariant = "dmf_nano"', r"\[data\] is incomplete: missing 1 required positional argument: 'name'"),
    ):
        broken.write_text(text)
        with pytest.raises(UsageError, match=f"^{message}"):
            read(str(broken))


def test_sections_are_complete():
    for section, field in (("optimizer", "lr"), ("sampler", "batch_size"), ("schedule", "epochs"), ("ema", "decay")):
        values = {name: {k: v for k, v in table.items() if k != field} for name, table in TINY.items()}
        with pytest.raises(UsageError, match=rf"^\[{section}\] is incomplete: missing .*'{field}'"):
            TrainingConfig.from_dict(values)
