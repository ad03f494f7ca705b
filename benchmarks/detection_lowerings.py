"""Latency and memory of a backbone's lowerings at the sizes of detection: `python -m benchmarks.detection_lowerings`.

DMF-XXS without end modules and head, at 640 x 640 and 800 x 1344 (the paper's 800 x 1333, padded): its feature maps are
8 and 21 times as large as at 224, its generated kernels as large as ever. Each lowering is measured against the static
twin in alternation, on one thread, as `make bench` does; the machine should do nothing else meanwhile. Results go to
benchmarks/results/detection_lowerings.json as they come; what is there already is not made again.
"""

import copy
import hashlib
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import dmf
from benchmarks.run import FORMS, RESULTS, TWIN, write
from dmf.detection.detector import Backbone
from export.convert import CONVERTERS
from export.convert.options import Options
from export.lowering import Lowering, lower
from export.pipeline import tool
from export.provenance import source
from export.reparameterize import reparameterize_backbone
from export.static import StaticBackbone
from export.verify.reference import without_bank
from runtime import commandline
from runtime.measure import Subject, compare
from runtime.runners import open_runner

FILE = "detection_lowerings.json"
MODEL, SEED, REPEATS, BLOCK = "dmf_xxs", 0, 40, 5
SIZES = ((640, 640), (800, 1344))
ROUTES = ("torch-onnx", "litert-torch")
STAGES = ("stride4", "stride8", "stride16", "stride32")
TOLERANCE = 1e-3  # what an artifact may differ from eager PyTorch in float64, of each stage's largest value


def main(argv: Sequence[str] | None = None) -> int:
    parser = commandline.ArgumentParser(prog="benchmarks.detection_lowerings", description=__doc__)
    parser.add_argument("--converters", nargs="+", choices=ROUTES, default=ROUTES, help="default: both")
    options = parser.parse_args(argv)
    rows: list[dict[str, Any]] = json.loads((RESULTS / FILE).read_text()) if (RESULTS / FILE).exists() else []
    known = {(row["converter"], row["lowering"], row["height"], row["width"]) for row in rows}
    backbone = make_backbone()
    graph, progress = reparameterize_backbone(backbone), commandline.Progress()
    with tempfile.TemporaryDirectory() as folder:
        for converter in options.converters:
            for size in SIZES:
                missing = [form for form in FORMS if (converter, form, *size) not in known]
                images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
                made: dict[str, Subject] = {}
                for form in dict.fromkeys([TWIN, *missing]) if missing else ():
                    with progress.stage(f"{converter} {form} at {size[0]} x {size[1]}: convert"):
                        made[form] = convert(graph, converter, form, images, Path(folder))
                for form in missing:
                    error = check(made[form], backbone, form, images)
                    with progress.stage(f"{converter} {form} at {size[0]} x {size[1]}: measure"):
                        rows.append(measured(made[form], made[TWIN], converter, form, size, error))
                    write(FILE, rows)
    return 0


def make_backbone() -> Backbone:
    """With seeded weights, kernel banks among them."""
    whole = dmf.seed_weights(dmf.create_model(MODEL), SEED)
    backbone = Backbone(whole.config)
    backbone.load_state_dict({name: whole.state_dict()[name] for name in backbone.state_dict()})
    return backbone.eval()


def convert(graph: StaticBackbone, converter: str, form: str, images: Tensor, folder: Path) -> Subject:
    """An artifact that takes these images (1, 3, H, W) in the runtime's layout."""
    by = CONVERTERS[converter]
    layouts = (by.layout, by.input_layout)
    x = layouts[1].permute_from_nchw(images).contiguous()
    height, width = images.shape[2:]
    path = folder / f"{converter}-{form.replace('/', '-')}-{height}x{width}.{by.format}"
    with tool(converter, folder / "log", folder / "rejected"):
        by.load()(lower(graph, Lowering.parse(form), *layouts), x, path, Options(folder / "log", outputs=STAGES))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    name, target = path.stem, "litert-cpu" if by.format == "tflite" else "onnxruntime-cpu"
    return Subject(name, sha256, MODEL, by.format, "fp32", target, path, x.numpy(), "noise, seed 1")


@torch.no_grad()
def check(subject: Subject, backbone: Backbone, form: str, images: Tensor) -> float:
    """The largest error of a stage, of its largest value. `RuntimeError`: it is not the backbone."""
    oracle = without_bank(backbone) if form == TWIN else copy.deepcopy(backbone)
    expected = oracle.double()(images.double())
    runner = open_runner(subject.format, subject.artifact)
    found = dict(zip(runner.output_names, runner.run(subject.x), strict=True))
    errors = []
    for stage, exact in zip(STAGES, expected, strict=True):
        answer = torch.from_numpy(found[stage])
        answer = answer.permute(0, 3, 1, 2) if subject.format == "tflite" else answer
        errors.append(float((answer - exact).abs().max() / exact.abs().max()))
    if not max(errors) < TOLERANCE:
        raise RuntimeError(f"{subject.name} is {max(errors):.2g} (relative) from PyTorch; at most {TOLERANCE}")
    return max(errors)


def measured(
    subject: Subject, twin: Subject, converter: str, form: str, size: tuple[int, int], error: float
) -> dict[str, Any]:
    comparison = compare(subject, twin, repeats=REPEATS, block=BLOCK, warmup=3)
    report = comparison.package
    assert report.peak_memory_bytes is not None and report.baseline_memory_bytes is not None
    return {
        "converter": converter,
        "lowering": form,
        "height": size[0],
        "width": size[1],
        "p50_ms": report.p50_ms,
        "ratio": comparison.latency_ratio,
        "ratio_q25": comparison.ratio_q25,
        "ratio_q75": comparison.ratio_q75,
        "memory_bytes": report.peak_memory_bytes - report.baseline_memory_bytes,
        "max_rel_error": error,
        "commit": source().commit,
        "runtime": asdict(report.runtime),
        "conditions": asdict(report.conditions),
        "samples_ms": [round(sample, 3) for sample in np.array(report.samples_ms).tolist()],
    }


if __name__ == "__main__":
    sys.exit(commandline.run("benchmarks.detection_lowerings", main))
