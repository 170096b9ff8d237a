"""What a program in the sandbox may use."""

from __future__ import annotations

from dataclasses import asdict, dataclass

MIB = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """Bounds on one program; each is enforced by the kernel, by the supervisor, or by both.

    The time limit that matters is of CPU time, which a busy machine does not shorten; wall time
    only ends what sleeps or waits.

    Args:
        cpu_seconds: CPU time of each process.
        wall_seconds: Time from start to end.
        memory_mib: Address space of each process, and resident memory of all together.
        file_mib: Size of one file. All files together hold four times as much in an isolation, and
            are not bounded without one.
        output_mib: Bytes on standard output; standard error keeps its last 4 KiB.
        processes: Processes at a time, the first included.
    """

    cpu_seconds: int = 6
    wall_seconds: float = 20.0
    memory_mib: int = 1024
    file_mib: int = 16
    output_mib: int = 8
    processes: int = 16

    def as_json(self) -> dict[str, float]:
        """Return the limits as plain values, for the supervisor."""
        return asdict(self)
