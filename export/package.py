"""What a package says of itself: the manifest."""

import sys
from pathlib import Path

from dmf import DMF
from export import provenance
from export.convert.coreml import LABEL, PROBABILITIES
from export.plan import Plan
from export.provenance import Origin
from export.verify.parity import Verdict
from runtime.manifest import InputSpec, Lowering, Manifest, Model, OutputSpec, hash_files

LABELS_NAME = "labels.txt"


def make_manifest(plan: Plan, model: DMF, origin: Origin, spec: InputSpec, verdict: Verdict, folder: Path) -> Manifest:
    config = model.config
    outputs = [OutputSpec("logits", (plan.batch, config.num_classes), "float16" if is_half(plan) else "float32")]
    if plan.is_classifier:
        outputs.append(OutputSpec(PROBABILITIES, (plan.batch, config.num_classes), "float32"))
        outputs.append(OutputSpec(LABEL, (plan.batch,), "string"))
    return Manifest(
        name=plan.name,
        format=plan.converter.format,  # type: ignore[arg-type]  # one of the schema's formats, as CONVERTERS has them
        artifact=plan.converter.artifact,
        converter=plan.converter.name,
        target=plan.target.name,
        lowering=Lowering(plan.lowering.pointwise, plan.lowering.depthwise, plan.lowering.reason, plan.measured),
        precision="fp16" if plan.precision == "fp16" else "fp32",
        keep_fp32=plan.keep_fp32,
        model=Model(plan.variant, sum(p.numel() for p in model.parameters()), config.to_dict()),
        checkpoint=provenance.checkpoint(model, origin),
        source=provenance.source(),
        tools=provenance.tools(),
        inputs=(spec,),
        outputs=tuple(outputs),
        labels=LABELS_NAME if plan.labels is not None else None,
        parity=verdict.parity,
        unchecked=unchecked(plan),
        files=hash_files(folder, labels=LABELS_NAME if plan.labels is not None else None),
    )


def is_half(plan: Plan) -> bool:
    """Whether logits come out in fp16: a Core ML classifier's do, because they are tapped inside the program."""
    return plan.is_classifier and plan.precision == "fp16"


def unchecked(plan: Plan) -> tuple[str, ...]:
    """What this machine can't check, and the command that does."""
    if plan.converter.format == "coreml" and sys.platform != "darwin":
        return (f"Apple's Core ML runtime: run `dmf-verify {plan.name}` on a Mac",)
    if plan.target.name == "litert-gpu":
        return ("LiteRT's GPU delegate: this host ran the artifact on its CPU",)
    return ()
