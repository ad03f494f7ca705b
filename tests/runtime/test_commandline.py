"""What ends a command is one line on stderr and the right exit code."""

import errno
import subprocess
import sys

import pytest

from runtime.commandline import ArgumentParser, Progress, run, whole_number
from runtime.errors import (
    CommandError,
    ConverterError,
    ParityError,
    RunnerError,
    UsageError,
)


def raising(error):
    def command(argv):
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UsageError("a"), 2, "prog: error: a"),
        (ConverterError("a\n  b"), 3, "prog: error: a b"),
        (ParityError("a"), 4, "prog: error: a"),
        (RunnerError("a"), 5, "prog: error: a"),
        (KeyboardInterrupt(), 130, "prog: interrupted"),
        (OSError(errno.ENOSPC, "x", "out.json"), 2, "prog: error: disk full: out.json"),
        (PermissionError(13, "Permission denied", "f"), 2, "prog: error: Permission denied: f"),
        (OSError("odd"), 2, "prog: error: odd"),
    ],
)
def test_exit_codes_and_lines(capsys, error, code, line):
    assert run("prog", raising(error)) == code
    out, err = capsys.readouterr()
    assert (out, err) == ("", line + "\n")


def test_every_command_error_has_its_own_code():
    codes = [kind.exit_code for kind in CommandError.__subclasses__()]
    assert {2, 3, 4, 5} <= set(codes)  # and 6, if training was imported
    assert len(set(codes)) == len(codes)


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run("prog", raising(ZeroDivisionError()))


def test_success_returns_the_commands_code():
    assert run("prog", lambda argv: len(argv or []), ["a"]) == 1


def test_a_closed_pipe_is_silent():
    code = "import sys, runtime.commandline as c\nsys.exit(c.run('prog', lambda argv: print('line\\n' * 100000) or 0))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def parser():
    parser = ArgumentParser(prog="prog")
    parser.add_argument("--format", choices=("onnx", "coreml", "tflite"))
    parser.add_argument("--threads", type=whole_number(1))
    parser.add_argument("--level", type=int, choices=(1, 2))
    return parser


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (
            ["--format", "onx"],
            ["--format", "'onx'", "onnx, coreml, tflite", "did you mean 'onnx'?"],
        ),
        (["--format", "zzz"], ["'zzz' is not one of onnx, coreml, tflite"]),
        (["--level", "3"], ["--level", "3 is not one of 1, 2"]),
        (["--formt", "onnx"], ["unknown argument '--formt'", "did you mean '--format'?"]),
        (["--thread=2"], ["unknown argument '--thread=2'", "did you mean '--threads'?"]),
        (["--threads", "0"], ["--threads", "'0' is not a whole number >= 1"]),
        (["--threads", "two"], ["--threads", "'two' is not a whole number >= 1"]),
        (["--threads"], ["--threads", "expected one argument"]),
        (["stray"], ["unknown argument 'stray'"]),
    ],
)
def test_argument_errors_say_what_is_allowed(argv, parts):
    with pytest.raises(UsageError) as refused:
        parser().parse_args(argv)
    for part in parts:
        assert part in str(refused.value)
    assert "\n" not in str(refused.value)


def test_good_arguments_are_parsed():
    arguments = parser().parse_args(["--format", "onnx", "--threads", "2", "--level", "1"])
    assert (arguments.format, arguments.threads, arguments.level) == ("onnx", 2, 1)


def test_progress_is_a_line_per_stage(capsys):
    with Progress().stage("convert"):
        pass
    with pytest.raises(UsageError), Progress().stage("verify"):
        raise UsageError("x")
    with Progress(quiet=True).stage("unheard"):
        pass
    out, err = capsys.readouterr()
    assert out == ""
    first, second = err.splitlines()
    assert first.startswith("convert: ") and first.endswith(" s")
    assert second.startswith("verify: failed after ")
