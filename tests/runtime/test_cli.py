"""``dmf-bench`` from its arguments to its exit code."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtime import documents
from runtime.cli import build_parser, main
from runtime.latency import read_results
from runtime.manifest import open_package

FAST = ["--warmup", "1", "--repeats", "4"]
FIXTURES = Path(__file__).parents[1] / "fixtures"


def refused(capsys, argv, code, *parts):
    """The command ends with ``code`` and one line on stderr that holds ``parts``."""
    assert main([str(argument) for argument in argv]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("dmf-bench: error: ")
    assert len(err.splitlines()) == 1
    for part in parts:
        assert part in err


def test_wrong_arguments(capsys, onnx_package, tmp_path):
    path = onnx_package.path
    refused(capsys, [], 2, "PACKAGE")
    refused(capsys, [path, "--thread", 1], 2, "unknown argument", "did you mean '--threads'?")
    refused(capsys, [path, "--on", "hots"], 2, "not one of host", "did you mean 'host'?")
    refused(capsys, [path, "--threads", 0], 2, "--threads", ">= 1")
    refused(capsys, [path, "--repeats", "x"], 2, "--repeats", ">= 1")
    refused(capsys, [path, "--warmup", -1], 2, "--warmup")
    refused(capsys, [tmp_path / "none"], 2, "none: no such folder")
    refused(capsys, [tmp_path], 2, "no manifest.json")
    refused(capsys, [path, "--against", tmp_path], 2, "no manifest.json")
    refused(capsys, [path, "--json", tmp_path], 2, "is not a regular file")
    refused(capsys, [path, "--json", tmp_path / "none" / "out.json"], 2, "there is no folder")


def test_an_altered_package_is_not_measured(capsys, own_package):
    (own_package.path / "labels.txt").write_text("altered")
    refused(capsys, [own_package.path], 2, "labels.txt was altered")


def test_a_failed_runtime_is_5(capsys, own_package, rehash):
    own_package.artifact.write_bytes(b"no model")
    rehash(own_package.path, own_package.manifest)
    refused(capsys, [own_package.path, "--quiet"], 5, "cannot open it")


def test_a_json_path_that_is_no_file_is_left_alone(capsys, onnx_package, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    refused(capsys, [onnx_package.path, "--json", tmp_path / "pipe"], 2, "is not a regular file")
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "link.json").symlink_to("real.json")
    argv = [str(onnx_package.path), *FAST, "--json", str(tmp_path / "link.json")]
    assert main(argv) == 0
    assert (tmp_path / "link.json").is_symlink()
    assert len(read_results(tmp_path / "real.json").reports) == 1


def test_ctrl_c_is_130_and_leaves_no_worker(heavy_package):
    code = (
        "import signal, sys; from runtime.cli import main; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"sys.exit(main([{str(heavy_package.path)!r}, '--repeats', '1000000']))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) as command:
        children = Path(f"/proc/{command.pid}/task/{command.pid}/children")
        while not (worker := children.read_text().strip()):
            time.sleep(0.05)
        time.sleep(0.5)
        command.send_signal(signal.SIGINT)
        errors = command.communicate(timeout=30)[1].decode()
    assert command.returncode == 130
    assert errors.splitlines()[-1] == "dmf-bench: interrupted"
    assert not Path(f"/proc/{worker}").exists()


def test_table_progress_and_json_file(capsys, onnx_package, tflite_package, tmp_path):
    path = tmp_path / "out.json"
    path.write_text("an older one")
    packages = [str(onnx_package.path), str(tflite_package.path)]
    assert main([*packages, *FAST, "--threads", "2", "--json", str(path)]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == [
        "package",
        "tiny-onnx-fp32",
        "tiny-tflite-fp32",
        *["not"] * 2,  # valid: 4 samples are too few
    ]
    assert [line.split(":")[0] for line in err.splitlines()] == [
        "measure tiny-onnx-fp32",
        "measure tiny-tflite-fp32",
    ]
    results = read_results(path)
    assert [report.threads for report in results.reports] == [2, 2]
    assert [len(report.samples_ms) for report in results.reports] == [4, 4]


def test_against_and_json_on_stdout(capsys, onnx_package, heavy_package):
    argv = [str(heavy_package.path), "--against", str(onnx_package.path), *FAST]
    assert main([*argv, "--json", "-", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    document = json.loads(out)
    documents.validate(document, "latency-v3", "stdout")
    assert document["reports"] == []
    assert document["comparisons"][0]["latency_ratio"] > 1.5

    assert main([*argv, "--quiet"]) == 0
    out, _ = capsys.readouterr()
    assert "heavy-onnx-fp32 takes " in out.splitlines()[-1]


@pytest.mark.parametrize(("flags", "chosen"), [([], "none"), (["--post-processing"], "runner")])
def test_post_processing_of_a_detector(capsys, flags, chosen):
    """And a classifier has none."""
    packages = [str(FIXTURES / name) for name in ("package-detector", "package")]
    assert main([*packages, *FAST, *flags, "--json", "-", "--quiet"]) == 0
    document = json.loads(capsys.readouterr().out)
    documents.validate(document, "latency-v3", "stdout")
    assert [report["post_processing"] for report in document["reports"]] == [chosen, None]
    assert [len(report["samples_ms"]) for report in document["reports"]] == [4, 4]


def test_post_processing_of_unreadable_outputs_is_5(capsys, tmp_path, rehash):
    """A detector whose artifact is a classifier's is measured, but nothing can be chosen from its answers."""
    folder = tmp_path / "package"
    shutil.copytree(FIXTURES / "package-detector", folder)
    shutil.copyfile(FIXTURES / "package" / "model.onnx", folder / "model.onnx")
    rehash(folder, open_package(FIXTURES / "package-detector").manifest)
    assert main([str(folder), *FAST, "--quiet"]) == 0
    capsys.readouterr()
    refused(capsys, [folder, *FAST, "--quiet", "--post-processing"], 5, "the artifact has no output scores")


def test_post_processing_means_nothing_on_an_emulator(capsys):
    argv = [FIXTURES / "package-detector", "--on", "arm64", "--count", "instructions", "--post-processing"]
    refused(capsys, argv, 2, "--post-processing is for host, android, ios, macos, not for arm64")


def test_help_names_every_flag_and_an_example(capsys):
    with pytest.raises(SystemExit) as done:
        main(["--help"])
    assert done.value.code == 0
    out, _ = capsys.readouterr()
    flags = [flag for action in build_parser()._actions for flag in action.option_strings]
    assert all(flag in out for flag in flags)
    assert "example:\n  dmf-bench " in out


def test_post_processing_is_of_detectors(onnx_package, capsys):
    assert main([str(onnx_package.path), "--post-processing"]) == 2
    assert "--post-processing is of detectors, and none of these packages is one" in capsys.readouterr().err
