"""``runtime`` stands alone and loads no inference runtime until one is used."""

import json
import subprocess
import sys

HEAVY = {
    "ai_edge_litert",
    "coremltools",
    "dmf",
    "export",
    "jsonschema",
    "onnx",
    "onnxruntime",
    "tensorflow",
    "torch",
}


def test_importing_runtime_loads_nothing_heavy():
    code = "import runtime, runtime.cli, json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert HEAVY & {name.split(".")[0] for name in json.loads(done.stdout)} == set()


def test_measuring_loads_no_pytorch(onnx_package):
    code = (
        "import sys; from runtime.cli import main; "
        f"assert main([{str(onnx_package.path)!r}, '--repeats', '2', '--quiet']) == 0; "
        "sys.exit(bool({'torch', 'dmf', 'export'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
