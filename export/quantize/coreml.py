"""A float .mlpackage -> the same with int8 weights, and perhaps activations, by coremltools. Works on any OS.

Its own calibration runs the model, which only a Mac can, and keeps the ranges of the last sample alone (9.0). So ranges
are taken op by op here, and given to the pass by which its `linear_quantize_activations` makes inputs int8. Not to the
one for outputs: behind each convolution comes a float op, so that would round for nothing.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.precision import Precision
from export.quantize.weights import Left, Weight, Weights
from export.verify.intermediates import all_values, open_with

QUANTIZE_INPUTS = "compression::insert_prefix_quantize_dequantize_pair"
FLOAT_ACTIVATIONS = {
    "generation": "the kernels that it generates stay float, and so do the attentions",
    "linear": "its activations are a few rows: int8 would add operations to save next to no memory",
}
MISSING = "no constant of the package has its values"

Ranges = dict[str, dict[str, float]]


def quantize(artifact: Path, weights: Weights, calibration: Sequence[NDArray[np.float32]] | None) -> list[Left]:
    """Rewrite the package in place. What is to be fp32 or fp16, and what is no weight, stays as converted.

    `calibration` is inputs of the package, for the ranges of w8a8's activations. Raises `ValueError` for w8a8 without
    calibration, and what coremltools raises.
    """
    import coremltools as ct
    from coremltools.optimize import coreml as cto

    original = ct.models.MLModel(str(artifact), skip_model_load=True)
    operations = _program(original).functions["main"].operations
    constants = {each.name: each.outputs[0] for each in operations if each.op_type == "const"}
    found = {name: weight for name, each in constants.items() if (weight := _find(weights, each.val)) is not None}
    int8 = {name: weight for name, weight in found.items() if weight.precision in ("w8", "w8a8")}
    layers = [layer.name for name in int8 if _is_static(int8[name]) for layer in constants[name].child_ops]
    if layers and not calibration:
        raise ValueError("w8a8 takes the ranges of activations from calibration inputs, but there are none")
    model = _with_activations(original, layers, _ranges(artifact, calibration)) if layers and calibration else original
    granularities = {name: "per_tensor" if weight.generates else "per_channel" for name, weight in int8.items()}
    configs = {
        name: cto.OpLinearQuantizerConfig(granularity=granularity, weight_threshold=0)  # symmetric, int8
        for name, granularity in granularities.items()
    }
    with np.errstate(divide="ignore", invalid="ignore"):  # a row of zeros gets the scale 0
        model = cto.linear_quantize_weights(model, cto.OptimizationConfig(op_name_configs=configs))
    spec = original.get_spec()
    spec.mlProgram.functions["main"].CopyFrom(model.get_spec().mlProgram.functions["main"])
    ct.models.MLModel(spec, weights_dir=model.weights_dir, skip_model_load=True).save(str(artifact))
    floats = _constants(spec)
    left = [_wider(weight, constants[name].val) for name, weight in int8.items() if name in floats]
    left += [
        Left(weight.module, "w8", FLOAT_ACTIVATIONS[weight.kind])
        for name, weight in int8.items()
        if weight.precision == "w8a8" and not _is_static(weight) and name not in floats
    ]
    held = set(found.values())
    left += [
        Left(each.module, "fp32", MISSING) for each in weights.all if each.precision != "fp32" and each not in held
    ]
    return list(dict.fromkeys(left))


def _program(model: Any) -> Any:
    from coremltools.converters.mil.frontend.milproto.load import load

    spec = model.get_spec()
    return load(spec, spec.specificationVersion, model.weights_dir)


def _is_static(weight: Weight) -> bool:
    return weight.precision == "w8a8" and weight.kind == "convolution"


def _wider(weight: Weight, values: NDArray[Any]) -> Left:
    precision: Precision = "fp16" if values.dtype == np.float16 else "fp32"
    return Left(weight.module, precision, f"coremltools does not quantise a constant of shape {values.shape}")


def _find(weights: Weights, value: Any) -> Weight | None:
    return weights.find(value) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else None


def _constants(spec: Any) -> set[str]:
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    return {operation.outputs[0].name for operation in block.operations if operation.type == "const"}


def _ranges(artifact: Path, calibration: Sequence[NDArray[np.float32]]) -> Ranges:
    """The least and the largest value of everything that the package computes, by name."""
    ranges: Ranges = {}
    with open_with("coreml", artifact, all_values("coreml", artifact)) as infer:
        for x in calibration:
            for name, values in {"image": x, **infer(x)}.items():
                if values.dtype.kind == "f":
                    seen = ranges.setdefault(name, {"rmin": np.inf, "rmax": -np.inf})
                    seen["rmin"] = min(seen["rmin"], float(values.min()))
                    seen["rmax"] = max(seen["rmax"], float(values.max()))
    return ranges


def _with_activations(model: Any, layers: Sequence[str], ranges: Mapping[str, Mapping[str, float]]) -> Any:
    """A model whose `layers`, by the name of the op, take int8."""
    import coremltools as ct
    from coremltools.converters.mil.converter import mil_convert
    from coremltools.optimize import coreml as cto

    config = cto.OptimizationConfig(op_name_configs=dict.fromkeys(layers, cto.OpLinearQuantizerConfig(mode="linear")))
    pipeline = ct.PassPipeline([QUANTIZE_INPUTS], "activations")
    pipeline.set_options(QUANTIZE_INPUTS, {"config": config, "activation_stats": ranges})
    spec = model.get_spec()
    return mil_convert(  # as coremltools.convert does, which can't take the description along
        _program(model),
        "milinternal",
        "mlprogram",
        ct.ComputeUnit.ALL,
        specification_version=spec.specificationVersion,
        model_description=spec.description,
        main_pipeline=pipeline,
        skip_model_load=True,
    )
