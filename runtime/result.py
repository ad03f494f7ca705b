"""What an app on a device wrote: one report, or why there is none."""

import json

from runtime import documents
from runtime.errors import RunnerError, UsageError
from runtime.latency import SCHEMA, Accelerator, LatencyReport, Results
from runtime.logs import keep_log
from runtime.manifest import Package


def read_result(text: str, package: Package, accelerator: Accelerator, where: str) -> LatencyReport:
    """The report of ``package`` on ``accelerator`` in a document of the schema ``latency-v3``.

    RunnerError: the app says what went wrong, or the document is none, or of something else, and is kept.
    """
    try:
        document = json.loads(text, parse_constant=documents.refuse_constant)
        if isinstance(document, dict) and isinstance(document.get("error"), str):
            raise RunnerError(f"{where}: {package.manifest.name} on {accelerator}: {document['error']}")
        documents.validate(document, SCHEMA, "the app's result")
        (report,) = documents.from_json(Results, document).reports
        measured = (report.package, report.artifact_sha256, report.accelerator)
        if measured != (package.manifest.name, package.artifact_sha256, accelerator):
            raise ValueError(f"it is of {measured}")
    except (ValueError, UsageError) as error:
        raise RunnerError(
            f"{where}: the app's result makes no sense ({error}); it is kept in {keep_log(where, text)}; "
            "install the app of this version"
        ) from error
    return report
