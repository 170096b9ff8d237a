"""Contract under test: the scalar kernels' fused multiply-add has the bits of the hardware's."""

from cpp_programs import fields, output_of


def test_the_emulation_equals_libm_where_rounding_twice_does_not(programs):
    found = fields(output_of(programs / "fma_emulation", "5000000"))
    assert found["mismatches"] == "0"
    assert int(found["naive_mismatches"]) > 0
