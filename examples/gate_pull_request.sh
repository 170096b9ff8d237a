#!/usr/bin/env bash
# A gate for pull requests: run a plan, write its report, and fail if an answer depended on the
# batch, or if a condition holds that is given.
#
#   examples/gate_pull_request.sh PLAN RUN_FOLDER [CONDITION ...]
#   examples/gate_pull_request.sh plan.toml runs/ci "layercast:accuracy<70"
#
# RUN_FOLDER/report.md is for the pull request, RUN_FOLDER/report.html for whoever looks into it.
set -euo pipefail

plan=$1
out=$2
shift 2

conditions=(--fail-if "layercast:bit_div_percent>0")
for condition in "$@"; do
  conditions+=(--fail-if "$condition")
done

layercast study run "$plan" --out "$out"
layercast study report "$out" --out "$out/report.html"
# Its exit status is the gate's.
layercast study report "$out" --format md --out "$out/report.md" "${conditions[@]}"
