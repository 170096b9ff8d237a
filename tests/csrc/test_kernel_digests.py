"""Contract under test: the kernels of every instruction set, called from C++, agree bit for bit."""

from cpp_programs import output_of


def test_every_instruction_set_has_the_same_digests(programs):
    first, *scalar = output_of(programs / "kernel_digests", "scalar").splitlines()
    names = first.split()[1:]
    assert names[-1] == "scalar"
    for isa in names[:-1]:
        assert output_of(programs / "kernel_digests", isa).splitlines()[1:] == scalar, isa
    # The control: digests tell the cases apart (rows of NaN alone are alike).
    assert len({line.split()[1] for line in scalar}) > len(scalar) // 2
