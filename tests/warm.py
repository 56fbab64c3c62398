"""`sr3eval` as a command that starts at once: it is forked from a process that has imported what takes seconds."""

import contextlib
import importlib
import json
import os
import runpy
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGES = (
    "accelerate",
    "torch.utils.tensorboard",
    "sr3eval.benchmark",
    "sr3eval.diffusion.estimate",
    "study_app.admin",
)
CLIENT = """#!{python} -SE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [json.dumps([sys.argv, os.getcwd(), dict(os.environ)]).encode()], [0, 1, 2])
    sys.exit(server.recv(1)[0])
"""


@contextlib.contextmanager
def command(folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """Have `sr3eval` in a folder while its server runs."""
    file = folder / "sr3eval"
    address = str(folder / "socket")
    with subprocess.Popen([sys.executable, __file__, address], env=environment, stdout=subprocess.PIPE) as server:
        server.stdout.readline()
        file.write_text(CLIENT.format(python=sys.executable, address=address))
        file.chmod(0o755)
        yield
        server.terminate()


def serve(address: str) -> None:
    """Run what clients ask for, each in a fork with the client's arguments, folder, environment and open files."""
    for package in PACKAGES:
        importlib.import_module(package)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        print("ready", flush=True)
        while True:
            client, _ = listening.accept()
            with client:
                if os.fork() == 0:
                    client.sendall(bytes([run(*socket.recv_fds(client, 1 << 20, 3)[:2])]))
                    os._exit(0)


def run(message: bytes, files: list[int]) -> int:
    """The exit code of a command."""
    arguments, folder, environment = json.loads(message)
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = arguments
    try:
        runpy.run_module("sr3eval.cli", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


if __name__ == "__main__":
    serve(*sys.argv[1:])
