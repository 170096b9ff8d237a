"""Contract under test: a plan is right, or each thing wrong with it is said in one clear line."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from layercast.errors import PlanError
from layercast.study import plan as plans
from layercast.study.plan import Precision, load_plan, parse_plan

VALID: dict[str, Any] = {
    "model": "testbed",
    "task": "bundled",
    "problems": 4,
    "precisions": ["bf16", "layercast"],
    "axes": {"instruction_sets": ["avx2"], "threads": [1], "batch_sizes": [8]},
    "decoding": {"max_new_tokens": 16},
}


def altered(**changes: Any) -> dict[str, Any]:
    """Return the valid plan with changes; a double underscore leads into a table."""
    tree = copy.deepcopy(VALID)
    for name, value in changes.items():
        *tables, key = name.split("__")
        place = tree
        for table in tables:
            place = place[table]
        if value is ...:
            del place[key]
        else:
            place[key] = value
    return tree


def endpoint(**changes: Any) -> dict[str, Any]:
    """Return a valid engine of the kind that is a server, with changes."""
    return {"kind": "openai", "endpoint": "http://localhost:8000/v1", **changes}


def test_bundled_plan_is_the_papers_design() -> None:
    plan = load_plan()
    assert plan.precisions == tuple(Precision)[:4]
    assert plan.engine.kind == "transformers"
    assert plan.axes.batch_sizes == (8, 16, 32)
    assert plan.axes.threads == (1, 2)
    assert plan.problems >= 64
    assert plan.decoding.method == "greedy"
    assert plan.model == "testbed"


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (altered(modle="x"), "`modle` is not a key of a plan; did you mean `model`?"),
        (altered(axes__thread=[1]), "`axes.thread` is not a key of a plan; did you mean `threads`"),
        (altered(decoding__beam=2), "allowed here: method, max_new_tokens, top_k, samples"),
        (altered(model=...), "`model` is missing"),
        (altered(axes=...), "`axes` is missing"),
        (
            altered(precisions=["bf17"]),
            "`precisions` must be one of 'bf16', 'fp16', 'fp32', 'layer",
        ),
        (altered(precisions=["bf17"]), "got 'bf17'"),
        (altered(precisions=[]), "`precisions` must not be empty"),
        (altered(precisions=["bf16", "bf16"]), "`precisions` must list each value once"),
        (altered(axes__batch_sizes=[8, 8]), "`axes.batch_sizes` must list each value once"),
        (altered(axes__threads=[0]), "`axes.threads` must be at least 1, got 0"),
        (altered(axes__threads=2), "`axes.threads` must be a list"),
        (altered(axes__instruction_sets=["sse"]), "`axes.instruction_sets` must be one of"),
        (altered(problems=0), "`problems` must be at least 1, got 0"),
        (altered(problems="many"), "`problems` must be a whole number, got 'many'"),
        (altered(problems=True), "`problems` must be a whole number, got True"),
        (altered(problems=2.5), "`problems` must be a whole number, got 2.5"),
        (altered(model=""), "`model` must not be empty"),
        (altered(axes=3), "`axes` must be a table, written [axes], got 3"),
        (altered(decoding__method="beam"), "`decoding.method` must be one of 'greedy'"),
        (
            altered(decoding__samples=4),
            '`decoding.samples` belongs to sampling; add method = "samp',
        ),
        (altered(decoding__temperature=0.7), "`decoding.temperature` belongs to sampling"),
        (
            altered(decoding={"method": "sampling", "max_new_tokens": 1, "temperature": 0}),
            "`decoding.temperature` must be more than 0, got 0",
        ),
        (altered(axes__batch_orders=[-1]), "`axes.batch_orders` must be at least 0, got -1"),
        (altered(axes__batch_orders=[1, 1]), "`axes.batch_orders` must list each value once"),
        (altered(axes__attention=["flash"]), "`axes.attention` must be one of 'default'"),
        (altered(axes__repeats=0), "`axes.repeats` must be at least 1, got 0"),
        (altered(engine={"kind": "vlm"}), "`engine.kind` must be one of 'transformers'"),
        (altered(engine={"kind": "openai"}), "`engine.endpoint` is missing; add it"),
        (altered(engine={"retries": 3}), "`engine.retries` belongs to an endpoint; add kind"),
        (altered(engine=endpoint(retry=3)), "`engine.retry` is not a key of a plan; did you mean"),
        (altered(engine=endpoint(endpoint="localhost")), "must be an address like http"),
        (altered(engine=endpoint(endpoint="http://x:y/v1")), "must be an address like http"),
        (altered(engine=endpoint(request={"n": 2})), "fields that the study does not set itself"),
        (altered(engine=endpoint(timeout_seconds=0)), "`engine.timeout_seconds` must be more than"),
        (
            altered(engine={"kind": "vllm", "vllm": {"hf_token": "hunter2"}}),
            "without keys, which a record would keep: log in (hf auth login) or set HF_TOKEN; "
            "remove hf_token",
        ),
        (altered(decoding__top_k=1), "`decoding.top_k` must be at least 2, got 1"),
        (altered(seed=-1), "`seed` must be at least 0, got -1"),
    ],
)
def test_wrong_key_is_named_with_what_was_got_and_what_is_allowed(
    tree: dict[str, Any], message: str
) -> None:
    with pytest.raises(PlanError) as caught:
        parse_plan(tree)
    assert message in str(caught.value)
    # One thing wrong is one line; nothing of pydantic's own report.
    assert len(str(caught.value).splitlines()) == 1
    assert "pydantic" not in str(caught.value)


@pytest.mark.parametrize(
    "engine",
    [
        {"endpoint": "http://user:hunter2@host/v1"},
        {"endpoint": "http://host/v1?key=hunter2"},
        {"endpoint": "https://hunter2:hunter2"},
        {"api_key_variable": "hunter2-hunter2"},
        {"request": {"api_key": "hunter2"}},
        {"request": {"Authorization": "Bearer hunter2"}},
    ],
)
def test_key_in_a_plan_is_refused_and_not_repeated(engine: dict[str, Any]) -> None:
    with pytest.raises(PlanError) as caught:
        parse_plan(altered(engine=endpoint(**engine)))
    assert "hunter2" not in str(caught.value)
    assert "`engine." in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_sampling_has_the_papers_settings_unless_told_otherwise() -> None:
    plan = parse_plan(altered(decoding={"method": "sampling", "max_new_tokens": 9, "samples": 4}))
    decoding = plan.decoding
    assert (decoding.samples, decoding.temperature, decoding.top_p) == (4, 0.7, 0.95)
    assert decoding.generator == "torch"
    assert parse_plan(plan.model_dump(mode="json")) == plan
    assert plan.narrowed(problems=2).decoding == decoding
    greedy = parse_plan(altered()).decoding
    assert (greedy.samples, greedy.temperature, greedy.answers_per_problem) == (None, None, 1)


def test_every_problem_gets_a_line() -> None:
    with pytest.raises(PlanError) as caught:
        parse_plan(altered(modle=1, problems=0, precisions=["a", "b"]))
    assert len(str(caught.value).splitlines()) == 1 + 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"model = ", "must be TOML"),
        (b"\xff\xfe\x00", "it is not UTF-8 text"),
        (None, "No such file or directory"),
    ],
)
def test_unreadable_plan_is_one_line(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "plan.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PlanError, match=message) as caught:
        load_plan(path)
    assert len(str(caught.value).splitlines()) == 1


def test_folder_as_plan_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="is a folder"):
        load_plan(tmp_path)


def test_plan_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(plans.bundled_plan_text().replace("problems = 64", "problems = 7"))
    assert load_plan(path).problems == 7


def test_narrowed_keeps_the_plans_order_and_leaves_the_rest() -> None:
    plan = load_plan().narrowed(precisions=["layercast", "bf16"], problems=3)
    assert plan.precisions == (Precision.BF16, Precision.LAYERCAST)
    assert plan.problems == 3
    assert plan.axes == load_plan().axes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"precisions": ["bf17"]}, "must be among the plan's"),
        ({"problems": 0}, "`problems` must be at least 1"),
    ],
)
def test_narrowed_refuses_what_the_plan_cannot_have(arguments: Any, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        load_plan().narrowed(**arguments)
