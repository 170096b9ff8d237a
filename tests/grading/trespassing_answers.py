"""Programs that read, write and reach what is not theirs: files, environments, the network."""

from __future__ import annotations

from hostile_answer import HostileAnswer

TRESPASSING = [
    HostileAnswer(
        "write outside its folder",
        """
        open("{elsewhere}", "w").write("harm")
        """,
        ("contained: write outside its folder", "contained: access outside its folder", "wrong"),
    ),
    HostileAnswer(
        "write into the system",
        """
        open("/usr/harm", "w").write("harm")
        """,
        ("contained: write outside its folder", "contained: access outside its folder"),
    ),
    HostileAnswer(
        "write into Python",
        """
        import json
        open(json.__file__, "a").write("harm")
        """,
        ("contained: write outside its folder", "contained: access outside its folder"),
    ),
    HostileAnswer(
        "read the environment",
        """
        import os
        print(os.environ["LAYERCAST_TEST_SECRET"])
        """,
        ("wrong",),
        reads=True,
    ),
    HostileAnswer(
        "read its parents' environments",
        """
        import glob
        for name in glob.glob("/proc/[0-9]*/environ"):
            try:
                print(open(name).read())
            except OSError:
                pass
        """,
        ("wrong",),
        reads=True,
    ),
    HostileAnswer(
        "read a file of the user",
        """
        print(open("{secret_file}").read())
        """,
        ("wrong", "contained: access outside its folder"),
        reads=True,
    ),
    HostileAnswer(
        "open a socket",
        """
        import socket
        with socket.create_connection(("127.0.0.1", {port}), timeout=3) as there:
            print(there.recv(100).decode())
        """,
        ("wrong", "contained: network access"),
        reads=True,
    ),
    HostileAnswer(
        "open a socket to elsewhere",
        """
        import socket
        socket.create_connection(("192.0.2.1", 80), timeout=3)
        """,
        ("contained: network access",),
    ),
    HostileAnswer(
        "open a socket to the host of a virtual machine",
        """
        import socket
        with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as there:
            there.settimeout(1)
            there.connect((2, 1))
        """,
        ("contained: network access",),
    ),
    HostileAnswer(
        "resolve a name",
        """
        import urllib.request
        urllib.request.urlopen("http://example.com", timeout=3)
        """,
        ("contained: network access",),
    ),
]
