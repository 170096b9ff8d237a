"""Contract under test: peers are asked alike, and what is told of them is what they answered."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from layercast.bench.model_worker import ProcessWorker
from layercast.bench.timing import Schedule
from layercast.errors import EnvironmentSetupError

FOLDER = Path(__file__).parents[2] / "benchmarks"

# An engine that counts: its token is the batch it is in, if it is told to be unstable.
FAKE = """
import sys
from peers.protocol import serve, timed

class Fake:
    def facts(self):
        print("a library prints this")
        return {"engine": "fake 1", "arguments": sys.argv[1:]}
    def generate(self, prompts, steps):
        if len(prompts) > 2:
            sys.exit("no room for so many")
        return timed(10.0, [12.0, 99.0, *(100.0 + i for i in range(steps))])
    def answer(self, prompts, max_new_tokens, ends):
        bits = [[len(prompts)] * 2 for _ in prompts]
        return {"tokens": [[1, 2] for _ in prompts], "logprob_bits": bits, "digests": None}

def load(loading):
    loading()
    return Fake()

serve(load)
"""


@pytest.fixture
def peers(monkeypatch):
    """The package, of which each module is imported by name."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return lambda name: importlib.import_module(f"peers.{name}")


@pytest.fixture
def fake(peers, monkeypatch):
    """Every engine's process is the fake one."""
    engines = peers("engines")

    def start(engine, folder, threads, sequences):
        command = [sys.executable, "-c", FAKE, engine.name, threads, sequences]
        return ProcessWorker(engine.name, command, {"PYTHONPATH": str(FOLDER)})

    for module in ("engines", "speed", "divergence"):
        monkeypatch.setattr(peers(module), "start", start)
    return engines


def test_a_process_answers_requests_and_what_libraries_print_is_none_of_it(fake, peers):
    worker = peers("speed").start(fake.BY_NAME["vllm_bf16"], "folder", 2, 8)
    try:
        assert worker.loaded["facts"]["arguments"] == ["vllm_bf16", "2", "8"]
        assert worker.loaded["load_seconds"] >= 0
        reply = worker.ask("generate", prompts=[[1]], steps=3)
        assert reply == {"prefill_seconds": 2.0, "decode_seconds": 1.0}
        assert worker.ask("memory")["peak_bytes"] >= 0
        with pytest.raises(EnvironmentSetupError, match="no room for so many"):
            worker.ask("generate", prompts=[[1]] * 3, steps=3)
    finally:
        worker.close()


def _case(peers, rows):
    schedule = Schedule(warmup_rounds=1, rounds_min=2, rounds_max=2, seconds=0.0)
    return peers("speed").SpeedCase(
        model="0.5 B model", rows=rows, prompt=4, steps=3, schedule=schedule
    )


def test_an_entry_holds_each_engines_times_beside_ours(fake, peers, monkeypatch):
    monkeypatch.setattr(peers("speed"), "PAUSE_SECONDS", 0.0)
    engines = [fake.BY_NAME[name] for name in ("layercast", "llama_cpp_f32")]
    with peers("speed").Group(engines, "folder", {"vocab_size": 9}, 2, 2) as group:
        entry = json.loads(json.dumps(group.measure(_case(peers, 2))))
    found = entry["engines"]["llama_cpp_f32"]
    assert set(found["seconds"]["prefill"]["samples"]) == {2.0}
    assert found["seconds"]["decode"]["median"] == 1.0
    assert found["seconds"]["end_to_end"]["median"] == 2.0 + 3 * 1.0
    assert found["speed"]["decode"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert (entry["rows"], entry["prompt_tokens"], group.left_out) == (2, 4, {})


def test_an_engine_that_ends_is_left_out_with_its_reason_and_the_others_go_on(
    fake, peers, monkeypatch
):
    monkeypatch.setattr(peers("speed"), "PAUSE_SECONDS", 0.0)
    start = peers("speed").start
    lasting = FAKE.replace("len(prompts) > 2", "False")

    def start_lasting(engine, *arguments):
        if engine.name != "layercast":
            return start(engine, *arguments)
        command = [sys.executable, "-c", lasting]
        return ProcessWorker(engine.name, command, {"PYTHONPATH": str(FOLDER)})

    monkeypatch.setattr(peers("speed"), "start", start_lasting)
    engines = [fake.BY_NAME[name] for name in ("layercast", "vllm_fp32")]
    with peers("speed").Group(engines, "folder", {"vocab_size": 9}, 2, 8) as group:
        entry = group.measure(_case(peers, 8))
        assert list(entry["engines"]) == ["layercast"]
        assert "no room for so many" in group.left_out["vllm_fp32"]


def test_an_engine_too_slow_for_a_batch_is_left_out_of_it_and_layercast_never_is(
    fake, peers, monkeypatch
):
    monkeypatch.setattr(peers("speed"), "PAUSE_SECONDS", 0.0)
    engines = [fake.BY_NAME[name] for name in ("layercast", "vllm_fp32")]
    with peers("speed").Group(engines, "folder", {"vocab_size": 9}, 2, 2) as group:
        assert len(group.measure(_case(peers, 1))["engines"]) == 2
        # A prefill took 2 s, so that one of twice the tokens is expected to take 4 s.
        monkeypatch.setattr(peers("speed"), "TURN_LIMIT_SECONDS", 3.9)
        entry = group.measure(_case(peers, 2))
        assert list(entry["engines"]) == ["layercast"]
        assert entry["left_out"] == {"vllm_fp32": "at batch 2 its prefill would take 4 s"}
        assert group.left_out == {}


def test_log_probabilities_that_follow_the_batch_are_noticed_and_equal_answers_too(fake, peers):
    divergence = peers("divergence")
    engine = fake.BY_NAME["vllm_fp32"]
    found, facts = divergence.answers(
        engine,
        "folder",
        [[1], [2], [3], [4]],
        [9],
        batches=(1, 2),
        threads=(1, 2),
        max_new_tokens=2,
        on_stage=lambda text: None,
    )
    assert list(found) == ["batch 1, 1 thread", "batch 2, 1 thread", "batch 2, 2 threads"]
    assert facts["2"]["arguments"] == ["vllm_fp32", "2", "2"]
    compared = divergence.compare(found)
    assert (compared["div_percent"], compared["div_index"]) == (0.0, -1.0)
    assert compared["logprobs"]["problems_differing"] == 4
    assert compared["logprobs"]["positions"] == 8
    assert compared["rows"] is None
    alone = divergence.compare({name: found[name] for name in found if "batch 1" in name})
    assert alone["logprobs"]["problems_differing"] == 0


def _reply(tokens, logprobs):
    bits = [[int(np.float32(value).view(np.uint32)) for value in row] for row in logprobs]
    return {"tokens": tokens, "logprob_bits": bits, "digests": None}


def test_positions_behind_a_parting_are_not_compared(peers):
    divergence = peers("divergence")
    found = {
        "a": _reply([[1, 2, 3], [7]], [[-0.5, -0.25, -1.0], [-2.0]]),
        "b": _reply([[1, 4, 3], [7]], [[-0.5, -0.25, -9.0], [-2.0]]),
    }
    compared = divergence.compare(found)
    assert (compared["div_percent"], compared["div_index"]) == (50.0, 1.0)
    # Two positions of the first problem, the one where they part included, and one of the other.
    assert compared["logprobs"] == {
        "problems_differing_percent": 0.0,
        "problems_differing": 0,
        "positions": 3,
    }
    beside = divergence.against(found["a"], found["b"])
    assert (beside["positions"], beside["largest_difference"]) == (2, 0.0)
    assert (beside["tokens_equal"], beside["bits_equal"]) == (False, False)


def test_an_engine_that_computes_another_model_is_refused(peers):
    divergence, engine = peers("divergence"), peers("engines").BY_NAME["llama_cpp_f32"]
    found = {"a": _reply([[1, 2]], [[-0.5, -0.5]])}
    other = {"stock_fp32": _reply([[1, 2]], [[-0.5, -0.5 - 1e-3]])}
    assert divergence.entry(engine, found, {}, other)["engines"]["llama_cpp_f32"]
    for stranger in (_reply([[1, 2]], [[-1.5, -1.5]]), _reply([[3, 2]], [[-0.5, -0.5]])):
        with pytest.raises(ValueError, match="must compute the bundled model"):
            divergence.entry(engine, found, {}, {"stock_fp32": stranger})


def test_groups_fit_into_memory_and_have_layercast_each(peers):
    engines, groups = peers("engines").ENGINES, peers("groups")
    parameters, limit = 1_500_000_000, 18_000_000_000
    found = groups.grouped(engines, parameters, limit)
    assert len(found) > 1
    for group in found:
        assert group[0].name == "layercast"
        assert sum(groups.model_bytes(engine, parameters) for engine in group) <= limit
    rivals = [engine for group in found for engine in group[1:]]
    assert rivals == [engine for engine in engines if engine.name != "layercast"]
    # Where nothing fits, pairs are measured all the same; where all fits, one group is.
    assert {len(group) for group in groups.grouped(engines, parameters, 0)} == {2}
    assert len(groups.grouped(engines, parameters, 10**12)) == 1


def test_an_environment_that_is_missing_is_a_sentence_with_the_command(peers, monkeypatch):
    engines = peers("engines")
    monkeypatch.setattr(
        engines.Environment, "python", lambda self: None if self.folder else Path(sys.executable)
    )
    there, missing = engines.chosen()
    assert [engine.environment for engine in there] == [engines.MAIN] * 5
    assert "`make peers`" in missing["llama_cpp_bf16"]
    assert "`make peers`" in missing["vllm_layercast"]
    assert [engine.name for engine in engines.chosen(["stock_fp32"])[0]] == [
        "layercast",
        "stock_fp32",
    ]
    with pytest.raises(SystemExit, match="llama_cpp_f32"):
        engines.chosen(["llama"])


def test_an_environment_is_there_once_its_library_is(peers, tmp_path):
    environment = peers("engines").LLAMA
    assert environment.python(tmp_path / "venv") is None
    (tmp_path / "venv-llama" / "lib" / "python3.11" / "site-packages" / "llama_cpp").mkdir(
        parents=True
    )
    assert environment.python(tmp_path / "venv") == tmp_path / "venv-llama" / "bin" / "python"


def _entry(rows, *names):
    engines = {name: {"seconds": 1} for name in ("layercast", *names)}
    return {"part": "speed", "model": "m", "rows": rows, "engines": engines}


def test_engines_measured_anew_replace_their_results_and_others_stay(peers):
    record = peers("record")
    first = record.merge(None, {"commit": "a"}, [_entry(1, "x", "y"), _entry(8, "x")])
    second = record.merge(first, {"commit": "b"}, [_entry(1, "y", "z")])
    found = [
        (second["contexts"][entry["context"]]["commit"], entry["rows"], sorted(entry["engines"]))
        for entry in second["measurements"]
    ]
    assert found == [
        ("a", 1, ["layercast", "x"]),
        ("a", 8, ["layercast", "x"]),
        ("b", 1, ["layercast", "y", "z"]),
    ]
    # A group none of whose rivals is left goes, and with it a context that nothing needs.
    third = record.merge(second, {"commit": "c"}, [_entry(1, "x", "y", "z"), _entry(8, "x")])
    assert [context["commit"] for context in third["contexts"].values()] == ["c"]


def test_divergence_of_an_engine_replaces_only_its_own(peers):
    record = peers("record")

    def entry(name, value):
        return {"part": "divergence", "engines": {name: value}}

    first = record.merge(None, {}, [entry("layercast", 1), entry("x", 2)])
    second = record.merge(first, {}, [entry("x", 3)])
    assert [found["engines"] for found in second["measurements"]] == [{"layercast": 1}, {"x": 3}]


def test_a_record_is_whole_after_each_entry(peers, tmp_path):
    path = tmp_path / "peers" / "cpu.json"
    file = peers("record").PeerRecord(path, {"commit": "a"})
    for count, rows in enumerate((1, 8), start=1):
        file.add(_entry(rows, "x"))
        assert len(json.loads(path.read_text())["measurements"]) == count


def test_the_command_says_what_it_takes():
    done = subprocess.run(
        [sys.executable, FOLDER / "compare_peers.py", "--engines", "nonsense"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "vllm_layercast" in line
