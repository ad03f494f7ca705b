"""A process of its own for one artifact, so that its load time and its peak memory are its own.

The parent sends one JSON object a line to the worker's stdin and reads one back from its stdout:

    {"open": {"format", "artifact", "input", "threads", "detection"}}  ->  {"cold_load_ms", "runtime", ...}
    {"invoke": n}                                         ->  {"samples_ms": [...]}
    {"run": {"input", "outputs"}}                         ->  {}, the outputs' file written
    {"mark": true}                                        ->  {"threads": n}, one invoke between two marks
    {"peak_memory": true}                                 ->  {"peak_memory_bytes": n}

An error the worker foresees comes back as ``{"error": message, "exit_code": code}``. The worker
ends when its stdin does, so it never outlives its parent by more than one request.

The worker's own Python needs numpy and the inference runtime, nothing more: ``runtime.arm64`` starts it
emulated.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from runtime.detections import read_detections
from runtime.errors import CommandError, RunnerError, UsageError
from runtime.manifest import Detection
from runtime.runners import Array, Runner, import_runtime, open_runner

ROOT = Path(__file__).resolve().parents[1]
MARK = 0x7AB00000  # no process has this id


@dataclass(frozen=True)
class Launch:
    """The Python that a worker runs in: its command, and its environment, where ``runtime`` can be imported."""

    command: tuple[str, ...]
    environment: dict[str, str]


def host_launch() -> Launch:
    """This Python."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return Launch((sys.executable,), {**os.environ, "PYTHONPATH": os.pathsep.join(paths)})


class Worker:
    """The parent's end.

    A context manager: on the way out, whatever the reason, the process is killed.
    """

    def __init__(self, name: str, *, timeout_s: float, launch: Launch | None = None) -> None:
        """Start the process, by default in this Python.

        Messages begin with ``name``; ``timeout_s`` bounds each request.
        """
        launch = launch or host_launch()
        self._name = name
        self._timeout_s = timeout_s
        self._folder = tempfile.TemporaryDirectory(prefix="dmf-bench-")
        self._log = Path(self._folder.name) / "stderr.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*launch.command, "-m", "runtime.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=launch.environment,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def open(
        self,
        format: str,
        artifact: Path,
        x: NDArray[np.float32] | None,
        threads: int,
        function: str | None = None,
        detection: Detection | None = None,
    ) -> dict[str, Any]:
        """Open the artifact, or this function of it.

        ``x`` is what ``invoke`` will run, if it will; with ``detection``, each invoke also reads the objects found.
        Returns the runtime, the outputs' names, the load time and the memory.
        """
        path = Path(self._folder.name) / "input.npy"
        if x is not None:
            np.save(path, x)
        return self._request(
            {
                "open": {
                    "format": format,
                    "artifact": str(artifact.absolute()),
                    "input": None if x is None else str(path),
                    "threads": threads,
                    "function": function,
                    "detection": None if detection is None else asdict(detection),
                }
            }
        )

    def invoke(self, count: int) -> list[float]:
        """Run the artifact ``count`` times; the milliseconds each took."""
        samples_ms: list[float] = self._request({"invoke": count})["samples_ms"]
        return samples_ms

    def run(self, x: NDArray[np.float32]) -> list[Array]:
        """The artifact's outputs, in order, for ``x``."""
        input, outputs = Path(self._folder.name) / "x.npy", Path(self._folder.name) / "outputs.npz"
        np.save(input, x)
        self._request({"run": {"input": str(input), "outputs": str(outputs)}})
        with np.load(outputs) as arrays:
            return [arrays[name] for name in arrays.files]

    def invoke_between_marks(self) -> int:
        """Mark, run the artifact once, mark again; the number of threads the process then had."""
        return int(self._request({"mark": True})["threads"])

    def peak_memory_bytes(self) -> int:
        """The process's peak resident memory so far."""
        return int(self._request({"peak_memory": True})["peak_memory_bytes"])

    def _request(self, request: dict[str, Any]) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        overdue = threading.Event()

        def give_up() -> None:
            overdue.set()
            self._process.kill()

        timer = threading.Timer(self._timeout_s, give_up)
        timer.start()
        try:
            stdin.write(json.dumps(request).encode() + b"\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = b""
        finally:
            timer.cancel()
        if not line:
            raise RunnerError(f"{self._name}: {self._epitaph(overdue.is_set())}")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            kinds = {UsageError.exit_code: UsageError}
            raise kinds.get(reply["exit_code"], RunnerError)(reply["error"])
        return reply

    def _epitaph(self, overdue: bool) -> str:
        if overdue:
            return f"the worker gave no answer within {self._timeout_s:g} s and was killed"
        code = self._process.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        lines = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "nothing")
        return f"the worker {how}; its last words: {last}"


def serve(requests: IO[str], replies: IO[str]) -> None:
    """The worker's end: answer each request until there are no more."""
    runner: Runner | None = None
    detection: Detection | None = None
    for line in requests:
        request = json.loads(line)
        reply: dict[str, Any]
        try:
            if "open" in request:
                options, runner = request["open"], None
                x = options["input"] and np.load(options["input"])
                import_runtime(options["format"])
                detection = options["detection"] and Detection(**options["detection"])
                baseline_memory_bytes = peak_memory_bytes()
                start = time.perf_counter_ns()
                runner = open_runner(*(options[name] for name in ("format", "artifact", "threads", "function")))
                reply = {
                    "cold_load_ms": (time.perf_counter_ns() - start) / 1e6,
                    "baseline_memory_bytes": baseline_memory_bytes,
                    "runtime": {
                        "name": runner.runtime,
                        "version": runner.version,
                        "delegate_partitions": runner.delegate_partitions,
                    },
                    "output_names": runner.output_names,
                }
            elif "invoke" in request:
                assert runner is not None, "open comes before invoke"
                samples_ms = []
                for _ in range(request["invoke"]):
                    start = time.perf_counter_ns()
                    outputs = runner.run(x)
                    if detection is not None:  # which is dense: its input's size does not matter
                        read_detections(dict(zip(runner.output_names, outputs, strict=True)), detection, x.shape[-2:])
                    samples_ms.append((time.perf_counter_ns() - start) / 1e6)
                reply = {"samples_ms": samples_ms}
            elif "run" in request:
                assert runner is not None, "open comes before run"
                np.savez(request["run"]["outputs"], *runner.run(np.load(request["run"]["input"])))
                reply = {}
            elif "mark" in request:
                assert runner is not None, "open comes before mark"
                mark()
                runner.run(x)
                mark()
                reply = {"threads": len(os.listdir("/proc/self/task"))}
            else:
                reply = {"peak_memory_bytes": peak_memory_bytes()}
        except CommandError as error:
            reply = {"error": str(error), "exit_code": error.exit_code}
        print(json.dumps(reply), file=replies, flush=True)


def mark() -> None:
    """A system call that does nothing, which ``runtime/arm64/icount.c`` sees."""
    with suppress(ProcessLookupError):
        os.getpgid(MARK)


def peak_memory_bytes() -> int:
    """This process's peak resident memory: VmHWM on Linux, ru_maxrss (there in bytes) on macOS."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Serve the parent.

    Ctrl-C is the parent's to act on, and what a library prints to stdout goes to stderr.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as replies:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        serve(sys.stdin, replies)


if __name__ == "__main__":
    main()
