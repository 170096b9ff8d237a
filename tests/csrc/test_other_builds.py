"""Contract under test: sanitizers find nothing, and AArch64 computes the bits of x86-64."""

import shutil
import subprocess

import pytest
from cpp_programs import BUILD, build, output_of

pytestmark = pytest.mark.slow

SANITIZERS = ["address,undefined", "thread"]


def digests(output):
    """The digest lines, without the first, which names the build's instruction sets."""
    return output.splitlines()[1:]


def isas(output):
    return output.splitlines()[0].split()[1:]


@pytest.fixture(scope="module")
def expected(programs):
    return digests(output_of(programs / "kernel_digests", "scalar"))


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_sanitizers_find_nothing_and_change_nothing(sanitizer, expected):
    folder = build(
        BUILD.with_name(f"csrc-tests-{sanitizer.replace(',', '-')}"),
        f"-DCMAKE_CXX_FLAGS=-fsanitize={sanitizer} -fno-sanitize-recover=all -g1",
    )
    for isa in isas(output_of(folder / "kernel_digests")):
        assert digests(output_of(folder / "kernel_digests", isa)) == expected, isa


def test_a_sanitizer_that_finds_something_fails(tmp_path):
    """The control: the same options stop a program that reads past an array."""
    source = tmp_path / "past_the_end.cc"
    source.write_text("int main(int n, char**) { int a[2] = {1, 2}; return a[n + 1]; }\n")
    program = tmp_path / "past_the_end"
    options = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run(["c++", *options, str(source), "-o", str(program)], check=True)
    assert subprocess.run([program], capture_output=True).returncode != 0


@pytest.mark.skipif(
    not (shutil.which("aarch64-linux-gnu-g++") and shutil.which("qemu-aarch64")),
    reason="no AArch64 processor here, nor a cross compiler with an emulator of one",
)
def test_aarch64_has_the_bits_of_x86_64(expected):
    folder = build(
        BUILD.with_name("csrc-tests-aarch64"),
        "-DCMAKE_SYSTEM_NAME=Linux",
        "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
        "-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++",
    )
    emulated = ["-L", "/usr/aarch64-linux-gnu", str(folder / "kernel_digests")]
    assert isas(output_of("qemu-aarch64", *emulated)) == ["neon", "scalar"]
    for isa in ("neon", "scalar"):
        assert digests(output_of("qemu-aarch64", *emulated, isa)) == expected, isa
