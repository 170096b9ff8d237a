"""Runs a study in a process of its own, to be killed: ``run_in_process.py OUT PLAN_JSON ENGINE``.

ENGINE is ``stub``, ``transformers``, ``killing`` or ``endpoint``. ``STUDY_RETRIES`` in the
environment says how often a crashed batch is tried again, ``STUDY_LAUNCHER`` where workers are
started. Prints the result as JSON and exits with 0 if the run is complete, 1 if not, 2 on a
refusal.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from layercast.errors import LayercastError
from layercast.study.plan import parse_plan
from layercast.study.pool import Launch
from layercast.study.runner import run_study

LAUNCHES = {
    "stub": Launch(engine="stub_engine", task="stub_engine:StubTask"),
    "transformers": Launch(),
    "killing": Launch(engine="killing_engine"),
    "endpoint": Launch(task="stub_engine:StubTask"),
}


def main() -> int:
    out, plan, engine = Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
    try:
        result = run_study(
            parse_plan(plan),
            out,
            launch=LAUNCHES[engine],
            retries=int(os.environ.get("STUDY_RETRIES", "0")),
            retry_failed="STUDY_RETRY_FAILED" in os.environ,
            launcher=os.environ.get("STUDY_LAUNCHER", "local"),
        )
    except LayercastError as error:
        print(error, file=sys.stderr)
        return 2
    print(
        json.dumps(
            {
                "complete": result.complete,
                "computed": result.batches_computed,
                "kept": result.batches_kept,
                "failures": [asdict(failure) for failure in result.failures],
                "notes": result.notes,
            },
            default=str,
        )
    )
    return 0 if result.complete else 1


if __name__ == "__main__":
    sys.exit(main())
