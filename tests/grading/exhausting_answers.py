"""Programs that use up processes, memory, disk, output or time, or outlive their test."""

from __future__ import annotations

from hostile_answer import HostileAnswer

EXHAUSTING = [
    HostileAnswer(
        "fork bomb",
        """
        import os, time
        for _ in range(9):          # 512 processes if nothing stops it
            os.fork()
        time.sleep(2)
        """,
        ("contained: process limit",),
    ),
    HostileAnswer(
        "fork bomb that catches what stops it",
        """
        import os, time
        for _ in range(9):
            try:
                os.fork()
            except OSError:
                pass
        time.sleep(2)
        """,
        ("contained: process limit",),
    ),
    HostileAnswer(
        "memory bomb",
        """
        held = []
        for _ in range(24):         # 6 GiB if nothing stops it
            held.append(b"x" * (256 * 1024 * 1024))
        print(len(held))
        """,
        ("contained: memory limit",),
    ),
    HostileAnswer(
        "memory bomb in several processes",
        """
        import os, time
        for _ in range(3):          # 8 processes of 300 MiB
            os.fork()
        held = bytearray(300 * 1024 * 1024)
        for place in range(0, len(held), 4096):
            held[place] = 1
        time.sleep(2)
        """,
        ("contained: memory limit",),
    ),
    HostileAnswer(
        "shared memory that no process has mapped",
        """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.shmget(1, ctypes.c_size_t(1 << 20), 0o1600) < 0:    # IPC_CREAT
            raise OSError(ctypes.get_errno(), "shmget")
        """,
        ("contained: forbidden operation",),
    ),
    HostileAnswer(
        "files in memory",
        """
        import os
        os.memfd_create("held")
        """,
        ("contained: forbidden operation",),
    ),
    HostileAnswer(
        "infinite output",
        """
        for _ in range(4000):       # 250 MiB if nothing stops it
            print("x" * 65536)
        """,
        ("contained: output limit",),
    ),
    HostileAnswer(
        "large file",
        """
        with open("large", "wb") as file:
            for _ in range(64):
                file.write(bytes(1024 * 1024))
        """,
        ("contained: file-size limit",),
    ),
    HostileAnswer(
        "many files",
        """
        for number in range(16):
            with open(f"file-{{number}}", "wb") as file:
                file.write(bytes(12 * 1024 * 1024))
        """,
        ("contained: disk limit",),
    ),
    HostileAnswer(
        "ignore SIGTERM, spin",
        """
        import signal
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGXCPU, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        while True:
            pass
        """,
        ("timed out: cpu time limit", "contained: ended by signal 9", "timed out: wall time limit"),
    ),
    HostileAnswer(
        "sleep",
        """
        import time
        time.sleep(600)
        """,
        ("timed out: wall time limit",),
    ),
    HostileAnswer(
        "detach a daemon",
        """
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                for descriptor in range(3):
                    os.close(descriptor)
                time.sleep(600)
            os._exit(0)
        os.wait()
        print("{expected}")
        """,
        ("contained: 1 process left running",),
    ),
    HostileAnswer(
        "hold the output open",
        """
        import os, time
        if os.fork() == 0:
            os.setsid()
            time.sleep(600)
        print("{expected}")
        """,
        ("contained: 1 process left running",),
    ),
]
