"""Programs that turn on the sandbox itself: kernel calls, limits, the supervisor, the host."""

from __future__ import annotations

from hostile_answer import HostileAnswer

SUBVERTING = [
    HostileAnswer(
        "make system calls by way of a ring",
        """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        parameters = ctypes.create_string_buffer(120)
        if libc.syscall(425, 4, parameters) < 0:    # io_uring_setup
            raise OSError(ctypes.get_errno(), "io_uring")
        """,
        ("contained: forbidden operation",),
    ),
    HostileAnswer(
        "make namespaces of its own",
        """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(0x10000000) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        """,
        ("contained: forbidden operation",),
    ),
    HostileAnswer(
        "clone into namespaces and mount over its folder",
        """
        import ctypes, os, platform
        libc = ctypes.CDLL(None, use_errno=True)
        number = {{"x86_64": 56, "aarch64": 220}}[platform.machine()]
        user, group = os.getuid(), os.getgid()
        # CLONE_NEWUSER, CLONE_NEWNS, SIGCHLD
        pid = libc.syscall(number, 0x10000000 | 0x00020000 | 17, 0, 0, 0, 0)
        if pid < 0:
            raise OSError(ctypes.get_errno(), "clone")
        if pid == 0:
            open("/proc/self/setgroups", "w").write("deny")
            open("/proc/self/uid_map", "w").write(f"0 {{user}} 1")
            open("/proc/self/gid_map", "w").write(f"0 {{group}} 1")
            if libc.mount(b"tmpfs", b"/answer", b"tmpfs", 0, b"size=1g") == 0:
                print("{expected}", flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
        """,
        ("contained: forbidden operation",),
    ),
    HostileAnswer(
        "clone3 into namespaces",
        """
        import ctypes, os, struct
        libc = ctypes.CDLL(None, use_errno=True)
        arguments = struct.pack("8Q", 0x10000000 | 0x00020000, 0, 0, 0, 17, 0, 0, 0)
        pid = libc.syscall(435, arguments, len(arguments))
        if pid == 0:
            print("{expected}", flush=True)
            os._exit(0)
        raise OSError(ctypes.get_errno(), "clone3")
        """,
        ("wrong: OSError: [Errno 38]",),
    ),
    HostileAnswer(
        "change its root",
        """
        import os
        os.chroot(".")
        """,
        ("contained: forbidden operation",),
    ),
    HostileAnswer(
        "open a file system",
        """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syscall(430, b"tmpfs", 0) < 0:      # fsopen
            raise OSError(ctypes.get_errno(), "fsopen")
        """,
        ("contained: forbidden operation",),
    ),
    HostileAnswer(
        "mount",
        """
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"tmpfs", b"/usr", b"tmpfs", 0, None) != 0:
            raise OSError(ctypes.get_errno(), "mount")
        """,
        ("contained: forbidden operation",),
    ),
    HostileAnswer(
        "become another user",
        """
        import os
        os.setuid(0)
        print(os.getuid())
        """,
        ("contained: forbidden operation", "wrong: OSError: [Errno 22]"),  # no such user inside
    ),
    HostileAnswer(
        "raise the limits",
        """
        import resource
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        """,
        ("wrong",),
    ),
    HostileAnswer(
        "limit the supervisor",
        """
        import os, resource
        for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_CPU):
            resource.prlimit(os.getppid(), kind, (0, 0))
        """,
        ("contained: forbidden operation",),
    ),
    HostileAnswer(
        "kill the parent",
        """
        import os, signal, time
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(0.2)
        """,
        ("contained: forbidden operation", "wrong"),
    ),
    HostileAnswer(
        "send every signal to the parent",
        """
        import os, signal, time
        for number in range(1, signal.NSIG):
            try:
                os.kill(os.getppid(), number)
            except OSError:
                pass
        time.sleep(0.2)
        """,
        ("wrong: another output",),
    ),
    HostileAnswer(
        "kill everyone",
        """
        import os, signal
        os.kill(-1, signal.SIGKILL)
        """,
        ("contained: ended by signal 9", "contained: forbidden operation", "wrong"),
    ),
    HostileAnswer(
        "kill the host",
        """
        import os, signal
        os.kill({host}, signal.SIGKILL)
        """,
        ("wrong",),
    ),
    HostileAnswer(
        "trace the supervisor",
        """
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.ptrace(16, os.getppid(), 0, 0) == 0:    # PTRACE_ATTACH
            print("attached")
        open(f"/proc/{{os.getppid()}}/mem", "rb").read(1)
        """,
        ("contained: access outside its folder", "contained: forbidden operation"),
    ),
    HostileAnswer(
        "write into the supervisor's answer",
        """
        import os
        for descriptor in os.listdir(f"/proc/{{os.getppid()}}/fd"):
            open(f"/proc/{{os.getppid()}}/fd/{{descriptor}}", "w").write("harm")
        """,
        ("contained: access outside its folder",),
    ),
]
