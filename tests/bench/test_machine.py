"""Contract under test: what is read of the machine is what its files say."""

import subprocess
import sys

from layercast.bench import caches, disturbance
from layercast.bench.disturbance import QUIET_SHARE, CoreSeconds, LoadMeter


def _describe(folder, *entries):
    for number, (kind, level, size) in enumerate(entries):
        index = folder / f"index{number}"
        index.mkdir()
        for name, text in (("type", kind), ("level", level), ("size", size)):
            (index / name).write_text(f"{text}\n")


def test_caches_are_read_by_level_without_the_instructions(tmp_path):
    _describe(
        tmp_path,
        ("Data", 1, "48K"),
        ("Instruction", 1, "64K"),
        ("Unified", 2, "2048K"),
        ("Unified", 3, "480M"),
    )
    assert caches.caches(tmp_path) == {"L1": 48 * 2**10, "L2": 2 * 2**20, "L3": 480 * 2**20}


def test_where_nothing_is_described_there_are_none(tmp_path):
    assert caches.caches(tmp_path) == {}


def _meter(monkeypatch, *readings):
    """A meter that reads these core seconds, ten seconds apart, on two cores."""
    values = iter(readings)
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(disturbance, "core_seconds", lambda: next(values))
    monkeypatch.setattr(disturbance.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(disturbance.os, "cpu_count", lambda: 2)
    return LoadMeter()


def test_what_others_take_is_what_ran_less_what_was_ours(monkeypatch):
    # 20 core seconds pass; 15 were busy, 10 of them ours: others had a quarter.
    meter = _meter(monkeypatch, CoreSeconds(100, 50), CoreSeconds(115, 60), CoreSeconds(130, 75))
    assert meter.read() == 0.25
    # From the last reading on: all 15 busy ones were ours.
    assert meter.read() == 0.0


def test_a_round_is_disturbed_beyond_the_quiet_share(monkeypatch):
    allowed = QUIET_SHARE * 20
    meter = _meter(
        monkeypatch,
        CoreSeconds(0, 0),
        CoreSeconds(10 + allowed * 0.9, 10),
        CoreSeconds(30 + allowed * 3, 20),
    )
    assert not meter.disturbed()
    assert meter.disturbed()


def test_a_system_that_keeps_no_accounts_disturbs_nothing(monkeypatch):
    meter = _meter(monkeypatch, None, None)
    assert not meter.disturbed()


def test_a_childs_work_counts_as_our_own_while_it_lives():
    program = "sum(i * i for i in range(4_000_000)); print('done', flush=True); input()"
    before = disturbance.core_seconds()
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "done\n"
    living = disturbance.core_seconds()
    child.communicate("\n")
    ended = disturbance.core_seconds()
    assert living.own > before.own + 0.05
    # And once, not twice, when it has ended: what it spent on ending is little.
    assert living.own <= ended.own < living.own + 0.5 * (living.own - before.own) + 0.1


def test_this_process_is_seen_to_work():
    before = disturbance.core_seconds()
    sum(i * i for i in range(3_000_000))
    after = disturbance.core_seconds()
    assert after.own > before.own
    assert after.all >= before.all
