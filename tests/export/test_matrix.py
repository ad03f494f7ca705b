"""`dmf-verify --matrix`: what is done, kept and done again, and the page, in a real browser."""

import json
import os
import shutil
from collections import Counter
from dataclasses import replace

import pytest

from dmf import VARIANTS
from export.convert import CONVERTERS
from export.verify import matrix
from export.verify.cli import main
from export.verify.matrix import Cell, Result, every_cell, page, read_matrix, run, selected
from runtime.errors import ConverterError, ParityError, UsageError

NANO = ["model=dmf_nano", "format=onnx", "precision=fp32", "machine=host"]
TAPS = Cell("dmf_nano", "onnx", "torch-onnx", "matmul/taps", "fp32", "host")


@pytest.fixture
def made(monkeypatch):
    """Artifacts as if made and proven: nothing is converted. The list is of what was asked for."""
    names = []

    def judge(cells, models, folder, progress):
        for cell in cells:
            names.append("/".join([*cell.artifact, cell.machine]))
            content = matrix._content(cell, models.weights(cell.model))
            yield Result(cell, "proven", "", 1e-6, 0.01, "a runtime", 0.1, content)

    monkeypatch.setattr(matrix, "_judge", judge)
    return names


def test_every_combination_is_a_cell():
    cells = every_cell()
    assert len(cells) == len(set(cells)) == len(VARIANTS) * len(CONVERTERS) * 6 * 4 * 4
    assert {cell.precision for cell in cells} == {"fp32", "fp16", "w8", "w8a8"}
    assert {cell.machine for cell in cells} == {"host", "cortex-a53", "cortex-a76", "max"}


def test_a_selection():
    found = selected(every_cell(), ["model=dmf_nano", "format=onnx,coreml", "precision=fp32", "machine=host"])
    assert Counter(cell.format for cell in found) == {"onnx": 6, "coreml": 6}
    assert selected(every_cell(), []) == every_cell()


@pytest.mark.parametrize(
    ("only", "message"),
    [
        ("modell=dmf_nano", "choose from model=..., format=..."),
        ("model", "'' is not one of dmf_nano"),
        ("model=dmf_nanno", "did you mean 'dmf_nano'"),
    ],
)
def test_a_selection_that_makes_no_sense(only, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        run(tmp_path, [only])
    assert list(tmp_path.iterdir()) == []


def test_cells_that_were_not_asked_for_say_so_and_what_can_not_be_says_why(tmp_path, made):
    found = run(tmp_path, NANO)
    assert len(found.results) == len(every_cell())
    assert made == [
        f"dmf_nano/onnx/torch-onnx/{name}/fp32/host" for name in dict.fromkeys(cell.lowering for cell in every_cell())
    ]
    status = {result.cell: result for result in found.results}
    assert Counter(result.status for result in found.results)["proven"] == 6
    assert status[replace(TAPS, model="dmf_s")] == Result(replace(TAPS, model="dmf_s"), "not run")
    for precision in ("fp16", "w8", "w8a8"):
        assert status[replace(TAPS, precision=precision)].status == "not run"
    emulated = Cell("dmf_nano", "coreml", "coremltools", "matmul/taps", "fp32", "cortex-a53")
    assert "not for coreml" in status[emulated].reason
    by_onnx2tf = Cell("dmf_nano", "tflite", "onnx2tf", "matmul/conv", "fp32", "host")
    assert "onnx2tf can't convert" in status[by_onnx2tf].reason


@pytest.mark.parametrize("name", VARIANTS)
def test_only_dmf_nano_has_pictures_for_int8_activations(name, tmp_path, made):
    found = run(tmp_path, [f"model={name}", "format=onnx", "lowering=matmul/taps", "machine=host"])
    of = {
        result.cell.precision: result
        for result in found.results
        if result.cell == replace(TAPS, model=name, precision=result.cell.precision)
    }
    assert [of[precision].status for precision in ("fp32", "fp16", "w8")] == ["proven"] * 3
    if name == "dmf_nano":
        assert of["w8a8"].status == "proven"
    else:
        assert of["w8a8"].status == "impossible"
        assert "only dmf_nano as it is shipped has calibration pictures" in of["w8a8"].reason
        assert f"{VARIANTS[name].image_size} px or larger" in of["w8a8"].reason


def test_what_is_known_is_not_done_again(tmp_path, made, monkeypatch):
    first = run(tmp_path, [*NANO, "lowering=matmul/taps"])
    made.clear()
    assert run(tmp_path, [*NANO, "lowering=matmul/taps"]) == first
    assert made == []
    run(tmp_path, [*NANO, "lowering=matmul/taps,matmul/bank"])  # only what is new
    assert made == ["dmf_nano/onnx/torch-onnx/matmul/bank/fp32/host"]
    made.clear()
    monkeypatch.setattr(matrix, "_code", lambda: "another version")
    changed = run(tmp_path, [*NANO, "lowering=matmul/taps"])
    assert made == ["dmf_nano/onnx/torch-onnx/matmul/taps/fp32/host"]
    status = {result.cell: result for result in changed.results}
    other = status[replace(TAPS, lowering="matmul/bank")]  # known, but not for this code
    assert (other.status, other.reason) == ("not run", "proven with other code, weights or tools")


def test_a_run_that_was_stopped_goes_on(tmp_path, made, monkeypatch):
    judge = matrix._judge

    def stopped(cells, models, folder, progress):
        if len(made) == 2:
            raise KeyboardInterrupt
        return judge(cells, models, folder, progress)

    monkeypatch.setattr(matrix, "_judge", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, NANO)
    assert Counter(result.status for result in read_matrix(tmp_path).results)["proven"] == 2
    monkeypatch.setattr(matrix, "_judge", judge)
    run(tmp_path, NANO)
    assert len(made) == len(set(made)) == 6


@pytest.mark.parametrize(
    ("error", "status", "code"), [(ParityError("off"), "failed", 4), (ConverterError("no"), "broken", 5)]
)
def test_an_artifact_that_fails_leaves_the_others(tmp_path, monkeypatch, error, status, code):
    """It is named with its reason; the exit code says that something failed. Other machines don't get it."""

    def refuse(plan, *_):
        raise error

    monkeypatch.setattr(matrix, "write_package", refuse)
    found = run(tmp_path, [*NANO, "lowering=matmul/taps"])
    (result,) = (each for each in found.results if each.cell == TAPS)
    assert (result.status, result.reason, result.max_abs_error) == (status, str(error), None)
    assert main(["--matrix", str(tmp_path), "--only", *NANO, "lowering=matmul/taps", "--quiet"]) == code
    only = ["model=dmf_nano", "format=onnx", "lowering=matmul/taps", "machine=cortex-a53"]
    found = run(tmp_path, only)
    (result,) = (each for each in found.results if each.cell == replace(TAPS, machine="cortex-a53"))
    assert (result.status, result.reason) == ("not run", f"{status} on host: it did not come to this machine")
    assert main(["--matrix", str(tmp_path), "--only", *only, "--quiet"]) == 4


def test_what_broke_is_tried_again_and_what_failed_is_not(tmp_path, monkeypatch):
    asked = []
    for error in (ConverterError("no space"), ParityError("off"), ParityError("never asked")):

        def refuse(plan, *_, error=error):
            asked.append(str(error))
            raise error

        monkeypatch.setattr(matrix, "write_package", refuse)
        run(tmp_path, [*NANO, "lowering=matmul/taps"])
    assert asked == ["no space", "off"]


def test_a_file_that_is_not_a_matrix(tmp_path):
    (tmp_path / "matrix.json").write_text("{}")
    with pytest.raises(UsageError, match=r"matrix.json: \$: .*is a required property"):
        run(tmp_path, NANO)
    assert (tmp_path / "matrix.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--matrix", "m", "build/dmf_nano-onnx"], "--matrix makes its own packages"),
        (["--only", "model=dmf_nano", "build/dmf_nano-onnx"], "--only is for --matrix"),
        ([], "give a PACKAGE, or --matrix DIR"),
    ],
)
def test_arguments_that_do_not_go_together(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_real_artifacts_on_two_machines(tmp_path, arm64, capsys):
    """What the manifest and the emulated CPU say of one artifact, on the command line; and of it in int8."""
    only = ["model=dmf_nano", "format=onnx", "lowering=matmul/taps", "precision=fp32,w8", "machine=host,cortex-a76"]
    assert main(["--matrix", str(tmp_path), "--only", *only, "--json", "--quiet"]) == 0
    document = json.loads(capsys.readouterr().out)
    proven = [result for result in document["results"] if result["status"] == "proven"]
    cells = [(result["cell"]["precision"], result["cell"]["machine"]) for result in proven]
    assert cells == [("fp32", "host"), ("fp32", "cortex-a76"), ("w8", "host"), ("w8", "cortex-a76")]
    for result in proven:
        assert result["max_abs_error"] > 0
        assert 0 < result["of_budget"] < 1
        assert result["checked_by"].startswith("onnxruntime")
    errors = [result["max_abs_error"] for result in proven]
    assert errors[0] != errors[1]  # other kernels ran
    assert min(errors[2:]) > 10 * max(errors[:2])  # int8 weights ran
    assert main(["--matrix", str(tmp_path), "--only", *only, "--quiet"]) == 0  # at once: it is known
    assert "4 proven" in capsys.readouterr().out


@pytest.fixture
def browser(tmp_path):
    """Headless Chromium without a network."""
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        reason = "needs chromium and chromedriver on the path (Debian: apt-get install chromium chromium-driver)"
        if os.environ.get("CI") or os.environ.get("DMF_REQUIRE_CHROMIUM"):
            pytest.fail(f"required here: {reason}")
        pytest.skip(f"{reason}; DMF_REQUIRE_CHROMIUM=1 makes this a failure")
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in (
        "headless",
        "no-sandbox",
        "disable-gpu",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        f"user-data-dir={tmp_path / 'profile'}",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options, Service(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture
def document(tmp_path, made):
    """A matrix with every status, and a reason that would break a page that didn't expect it."""
    found = run(tmp_path, NANO)
    results = list(found.results)
    results[1] = Result(
        results[1].cell, "failed", "</script><b>logits</b> & more", 1.0, 12.5, "a runtime", 0.1, "0" * 64
    )
    results[2] = Result(results[2].cell, "broken", "it wrote no file", content="0" * 64)
    return replace(found, results=tuple(results))


def test_the_page_in_a_browser(tmp_path, document, browser):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.select import Select

    file = tmp_path / "page.html"
    file.write_text(page(document), encoding="utf-8")
    browser.get(file.as_uri())

    def rows():
        return [row.text.split() for row in browser.find_elements(By.CSS_SELECTOR, "#grid tbody tr")]

    def counts():
        return {
            span.text.partition(" ")[2]: int(span.text.partition(" ")[0])
            for span in browser.find_elements(By.CSS_SELECTOR, "#counts span")
        }

    expected = Counter(result.status for result in document.results)
    assert counts() == expected
    assert (expected["failed"], expected["broken"], expected["proven"]) == (1, 1, 6)
    assert len(rows()) == len(
        {(*result.cell.artifact[:3], result.cell.precision, result.cell.machine) for result in document.results}
    )
    for name, value in (("format", "coreml"), ("precision", "fp16"), ("machine", "host")):
        Select(browser.find_element(By.NAME, name)).select_by_visible_text(value)
    assert [row[:5] for row in rows()] == [[name, "coreml", "coremltools", "fp16", "host"] for name in VARIANTS]
    for name in ("format", "precision", "machine"):
        Select(browser.find_element(By.NAME, name)).select_by_visible_text("all")
    Select(browser.find_element(By.NAME, "status")).select_by_visible_text("failed")
    (row,) = rows()
    assert row[-1] == "13"  # times its budget, two digits
    (cell,) = browser.find_elements(By.CSS_SELECTOR, "td.failed")
    cell.click()
    detail = browser.find_element(By.ID, "detail")
    assert "</script><b>logits</b> & more" in detail.text
    assert "1250 % of the budget" in detail.text.replace("1.3e+3", "1250")
    assert not detail.find_elements(By.TAG_NAME, "b")
    severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert severe == []
    requests = {
        message["params"]["request"]["url"]
        for message in (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
        if message["method"] == "Network.requestWillBeSent"
    }
    assert {url for url in requests if not url.startswith(("data:", "chrome"))} == {file.as_uri()}


def test_a_page_with_a_fault_is_noticed(tmp_path, document, browser):
    """The negative control of the test above: a script that fails, and an image from elsewhere."""
    file = tmp_path / "page.html"
    broken = page(document).replace("filters();", "filers();").replace("<h1>", "<img src='other.png'><h1>")
    file.write_text(broken, encoding="utf-8")
    browser.get(file.as_uri())
    severe = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert any("filers is not defined" in message for message in severe)
    assert any("other.png" in message for message in severe)
