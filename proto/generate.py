"""Writes the Python code of `proto/cexec/v1/cexec.proto`: `make proto`.

usage: generate.py DIRECTORY

Contract: the code comes into DIRECTORY/cexec/gate/rpc/wire, as `FILES`.  It needs grpcio-tools; the version that
pyproject.toml names writes what is checked in (`tests/gate/rpc/test_generated.py`).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import grpc_tools

SOURCE = Path(__file__).parent / "cexec" / "v1"
# protoc makes the names of Python's packages of a file's path, so the file gets the path of the code.
PLACE = "cexec/gate/rpc/wire"
FILES = ("cexec_pb2.py", "cexec_pb2.pyi", "cexec_pb2_grpc.py")


def generate(directory: Path) -> None:
    """Writes FILES below the directory; raises `CalledProcessError` if protoc finds fault."""
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    (directory / PLACE).mkdir(parents=True, exist_ok=True)
    outputs = [f"--{kind}_out={directory}" for kind in ("python", "pyi", "grpc_python")]
    places = [f"--proto_path={PLACE}={SOURCE}", f"--proto_path={well_known}"]
    argv = [sys.executable, "-m", "grpc_tools.protoc", *places, *outputs, f"{PLACE}/cexec.proto"]
    subprocess.run(argv, check=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    generate(Path(sys.argv[1]))
