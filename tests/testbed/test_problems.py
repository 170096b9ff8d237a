"""Contract under test: a split is a fixed list of problems, and the two splits never meet."""

import hashlib
import json
import re
from itertools import islice

import pytest

from layercast.testbed import grade, path, problems
from layercast.testbed.problems import split_of, stories


def _hashes(split: str, count: int) -> tuple[set[bytes], set[bytes]]:
    questions, skeletons = set(), set()
    for story in islice(stories(split), count):
        questions.add(hashlib.sha256(story.question.encode()).digest())
        skeletons.add(hashlib.sha256(story.skeleton.encode()).digest())
    return questions, skeletons


def test_no_test_problem_is_in_the_training_set():
    # Every story the trainer drew: the first train stories, in pools of 256 ahead of its step.
    log = json.loads((path() / "training_log.json").read_text())
    trained_questions, trained_skeletons = _hashes("train", log["examples"] + 256)
    test_questions, test_skeletons = _hashes("test", 2000)
    assert not trained_questions & test_questions
    assert not trained_skeletons & test_skeletons
    # The control: the same check does find a training story.
    control, _ = _hashes("train", 1)
    assert control <= trained_questions


def test_split_follows_from_the_skeleton_alone():
    assert {split_of(story.skeleton) for story in islice(stories("test"), 200)} == {"test"}
    assert {split_of(story.skeleton) for story in islice(stories("train"), 200)} == {"train"}


def test_problems_are_fixed_distinct_and_a_prefix_of_more():
    first = problems("test", 64)
    assert first == problems("test", 80)[:64]
    assert len({problem.question for problem in first}) == 64
    assert [problem.id for problem in first[:2]] == ["test-0000", "test-0001"]


@pytest.mark.parametrize("split", ["train", "test"])
def test_answer_follows_from_the_question(split):
    # Redo each story from its question's words alone.
    for story in islice(stories(split), 500):
        count = int(re.search(r"\d+", story.question).group())
        events = re.split(r"(?<=[.?]) ", story.question)[1:-1]
        assert len(events) == len(story.steps)
        for event in events:
            count = _apply(event, count)
        assert count == story.answer


def _apply(event: str, count: int) -> int:
    numbers = [int(n) for n in re.findall(r"\d+", event)]
    if len(numbers) == 2:
        return count + numbers[0] * numbers[1]
    if "doubles" in event or "twice" in event:
        return count * 2
    if "triples" in event or "three times" in event:
        return count * 3
    if "equal" in event:
        assert count % numbers[0] == 0
        return count // numbers[0]
    return count - numbers[0] if "gives" in event or "loses" in event else count + numbers[0]


@pytest.mark.parametrize(
    ("text", "answer", "right"),
    [
        (r"so \boxed{42}.", "42", True),
        (r"first \boxed{41}, no: \boxed{ 42 }", "42", True),
        (r"\boxed{42} then \boxed{41}", "42", False),
        (r"\boxed{042}", "42", True),
        (r"\boxed{-3}", "-3", True),
        ("42", "42", False),
        (r"\boxed{}", "0", False),
        ("", "0", False),
    ],
)
def test_grade_takes_the_last_boxed_integer(text, answer, right):
    assert grade(text, answer) is right
