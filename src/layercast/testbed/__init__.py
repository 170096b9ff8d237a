"""The bundled model: a small reasoning model, its problems and its grader."""

from layercast.testbed.checkpoint_files import path
from layercast.testbed.grading import extract, grade
from layercast.testbed.problems import Problem, problems

__all__ = ["Problem", "extract", "grade", "path", "problems"]
