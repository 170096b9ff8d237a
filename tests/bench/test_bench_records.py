"""Contract under test: a record says what was measured, how and where; files merge case by case."""

import io
import json
import subprocess
import sys

import pytest
from fakes import NAMES, fake_case, quiet_workspace
from rich.console import Console

from layercast.bench import environment, records
from layercast.bench.case import Variant
from layercast.bench.runner import Measurement
from layercast.bench.table import notes, result_table
from layercast.bench.timing import Schedule, Times
from layercast.errors import RecordError

CIRCUMSTANCES = {"commit": "abc", "device": {"cpu_model": "Any(R) CPU @ 2 GHz", "usable_cores": 2}}


def _measurement(seconds=1.0, quiet=True, **case):
    times = {name: Times((seconds * (i + 1),) * 3) for i, name in enumerate(NAMES)}
    checked = {"relative_error": {Variant.LAYERCAST: 1e-7, Variant.STOCK_FP32: 4e-7}}
    facts = {"past_last_level_cache": quiet}
    return Measurement(fake_case(**case), times, checked, facts, {}, 0, quiet)


def test_a_record_holds_shape_dtypes_inputs_times_and_what_was_checked():
    entry = json.loads(json.dumps(records.record(_measurement())))
    assert entry["operation"] == "linear"
    assert (entry["sizes"], entry["rows"]) == ({"N": 4, "K": 8}, 1)
    assert entry["weight_dtype"] == "bfloat16"
    assert entry["input_distribution"] == "none"
    assert entry["seconds"]["stock_fp32"]["median"] == 2.0
    assert entry["seconds"]["layercast"]["samples"] == [1.0] * 3
    assert entry["speed"] == {"stock_fp32": {"value": 2.0, "low": 2.0, "high": 2.0}}
    assert entry["checked"]["relative_error"]["layercast"] == 1e-7
    assert (entry["rounds_dropped"], entry["quiet"]) == (0, True)


def test_a_case_measured_anew_replaces_its_record_and_others_stay_with_their_context():
    first = records.merge(None, CIRCUMSTANCES, [_measurement(1.0), _measurement(1.0, rows=8)])
    later = CIRCUMSTANCES | {"commit": "def"}
    second = records.merge(first, later, [_measurement(5.0, rows=8)])
    found = {entry["rows"]: entry for entry in second["measurements"]}
    assert set(found) == {1, 8}
    assert found[8]["seconds"]["layercast"]["median"] == 5.0
    assert second["contexts"][found[1]["context"]]["commit"] == "abc"
    assert second["contexts"][found[8]["context"]]["commit"] == "def"
    # A context that no record needs goes.
    third = records.merge(second, later, [_measurement(6.0)])
    assert [context["commit"] for context in third["contexts"].values()] == ["def"]


def test_a_file_is_read_back_as_it_was_written(tmp_path):
    contents = records.merge(None, CIRCUMSTANCES, [_measurement()])
    records.write(tmp_path / "bench.json", contents)
    assert records.read(tmp_path / "bench.json") == contents
    assert records.read(tmp_path / "absent.json") is None


@pytest.mark.parametrize("text", ["{", "[]", '{"schema_version": 0}', '{"schema_version": 1}'])
def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path, text):
    path = tmp_path / "bench.json"
    path.write_text(text)
    with pytest.raises(RecordError, match="--json"):
        records.read(path)
    assert path.read_text() == text


def test_in_a_folder_the_file_is_named_for_the_processor(tmp_path):
    assert records.result_path(tmp_path, CIRCUMSTANCES).name == "any-cpu-2-cores.json"
    assert records.result_path(tmp_path / "x.json", CIRCUMSTANCES) == tmp_path / "x.json"


def test_the_context_names_device_versions_commit_and_the_state_of_torch():
    context = json.loads(json.dumps(environment.context()))
    assert context["device"]["cpu_model"]
    assert all(size > 0 for size in context["device"]["cache_bytes"].values())
    assert context["versions"]["torch"]
    assert set(context["source"]) == {"commit", "dirty"}
    assert context["layercast"]["isa"]
    state = context["torch"]
    assert state["threads"] >= 1
    assert state["inference_mode"] is True
    assert state["float32_matmul_precision"] == "highest"
    assert {"onednn_isa", "onednn_bf16_linear", "mkldnn_enabled", "mkl"} <= set(state)


def test_the_method_is_recorded():
    method = records.method(Schedule(), quiet_workspace())
    assert method["weight_bytes_between_uses_wanted"] == 2**16
    assert method["schedule"]["rounds_min"] == Schedule().rounds_min


def _text(renderable):
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


def test_the_table_shows_time_and_times_as_fast_within_80_columns():
    full = fake_case(
        sizes=(("N", 18944), ("K", 3584)), rows=512, variants=(*NAMES, Variant.FMA_PEAK)
    )
    # As many as a case of the registry has.
    names = [name for name in Variant if name not in (Variant.STOCK_FP16, Variant.FMA_PEAK)]
    times = {
        name: Times((0.1234 * ratio,) * 3)
        for name, ratio in zip(names, (1.0, 0.123, 1.5, 10.25), strict=True)
    }
    rates = {Variant.LAYERCAST: 3.0, Variant.FMA_PEAK: 4.0}
    checked = _measurement().checked
    text = _text(result_table([Measurement(full, times, checked, {}, rates, 0, True)]))
    for value in ("18944 x 3584", "512", "123.4 ms", "0.12", "1.50", "10.2", "0.25", "75%"):
        assert value in text, text
    assert "…" not in text


def test_the_notes_say_what_was_disturbed_or_came_from_a_cache():
    assert len(notes([_measurement()])) == 1
    disturbed = " ".join(notes([_measurement(quiet=False)]))
    assert "Not quiet" in disturbed
    assert "cache" in disturbed


def test_cases_and_records_need_no_library_of_the_study_or_the_command_line():
    program = (
        "import sys\n"
        "for name in ('pydantic', 'pyarrow', 'plotly', 'math_verify', 'rich', 'typer'):\n"
        "    sys.modules[name] = None\n"
        "import layercast.bench, layercast.bench.records, layercast.bench.model\n"
        "import layercast.bench.generation\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
