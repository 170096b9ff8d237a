"""Contract under test: the audit names each uncovered operation, its module, and nothing else."""

from __future__ import annotations

import planted_modules
import pytest
import torch
from planted_modules import Exact

import layercast

PATH = "model.layers.1.mlp"

# Class to the operations that must be named: exactly these, in the module that was planted.
PLANTED = {
    "NumpyMatmul": ["torch.from_numpy"],
    "NumpyMatmulIntoTorch": ["write through Tensor.numpy"],
    "NumpyMatmulIntoEmpty": ["write through Tensor.numpy"],
    "NumpyMatmulByTensor": ["torch.from_numpy"],
    "NumpyMatmulIntoBuffer": ["write through Tensor.numpy"],
    "RawPointer": ["write through a raw pointer"],
    "WorkerThread": ["(unrecorded tensor)"],
    "ForeignOperator": ["planted.doubled.default"],
    "Uninitialised": ["torch.empty"],
    "PythonMean": ["aten.sub.Tensor"],
    "DivisionByNumber": ["aten.div.Tensor"],
    "DivisionByScalarTensor": ["aten.div.Tensor"],
    "AddWithAlpha": ["aten.add.Tensor"],
    "SubtractInPlaceWithAlpha": ["aten.sub_.Tensor"],
    "ForeachAddWithAlpha": ["aten._foreach_add.List"],
    "Mean": ["aten.mean.dim"],
    "Sum": ["aten.sum.dim_IntList"],
    "Softmax": ["aten._softmax.default"],
    "SoftmaxInInferenceMode": ["aten._softmax.default"],
    "SquareRoot": ["aten.sqrt.default"],
    "Cube": ["aten.pow.Tensor_Scalar"],
    "Bfloat16Product": ["aten.mul.Tensor"],
    "IndexAdd": ["aten.index_add_.default"],
    "RepeatedIndexWrite": ["aten.index_put_.default"],
    "Dice": ["aten.rand_like.default"],
    "CompiledFunction": ["torch.compile"],
    "WarmCompiledFunction": ["torch.compile"],
    "LengthDependentScale": ["aten.mul.Tensor"],
}
IN_A_SUBMODULE = {
    "CompiledSubmodule": f"{PATH}.compiled",
    "CompiledInPlace": f"{PATH}.compiled",
    "ScriptedSubmodule": f"{PATH}.scripted",
}


def audit_planted(folder, name):
    model = layercast.load(folder)
    layer = model.model.layers[1]
    layer.mlp = getattr(planted_modules, name)(layer.mlp).eval()
    return layercast.audit(model)


@pytest.mark.parametrize("name", PLANTED)
def test_audit_names_exactly_what_is_planted(folders, name):
    report = audit_planted(folders["llama"], name)
    assert not report.covered
    found = [(finding.operation, finding.module) for finding in report.uncovered]
    assert found == [(operation, PATH) for operation in PLANTED[name]]
    assert f"{PLANTED[name][0]} in {PATH}" in str(report)
    assert all("planted_modules.py:" in finding.source for finding in report.uncovered)
    assert not any(row.holds for row in report.guarantees if "invariant" in row.word)


@pytest.mark.parametrize("name", IN_A_SUBMODULE)
def test_audit_names_compiled_submodules(folders, name):
    report = audit_planted(folders["llama"], name)
    found = [(finding.operation, finding.module) for finding in report.uncovered]
    assert found == [("torch.compile", IN_A_SUBMODULE[name])]


def test_audit_takes_exact_operations_as_covered(folders):
    report = audit_planted(folders["llama"], "Exact")
    assert [str(finding) for finding in report.uncovered] == []
    assert report.covered


def test_audit_compares_bits_where_every_operation_is_exact(folders):
    report = audit_planted(folders["llama"], "BatchMaximum")
    (finding,) = report.uncovered
    assert finding.operation == "(different bits)"
    assert "batch" in finding.reason or "token by token" in finding.reason


def test_audit_reports_roundings_and_denies_float32_throughout(folders):
    class Rounded(Exact):
        def plant(self, y):
            return y.to(torch.bfloat16).float()

    model = layercast.load(folders["llama"])
    model.model.layers[1].mlp = Rounded(model.model.layers[1].mlp).eval()
    report = layercast.audit(model)
    assert report.covered
    (rounding,) = report.roundings
    assert rounding.module == PATH
    assert rounding.what == "float32 to bfloat16, to nearest even"
    held = {row.word: row.holds for row in report.guarantees}
    assert held["batch invariant"]
    assert not held["float32 throughout"]
