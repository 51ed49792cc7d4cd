"""Generates the package's modules from the proto files, into src/stampede.

Messages of google come from the package googleapis-common-protos and are not generated again.
What Kafka carries is left out: no client of the gateway reads it.
"""

import shutil
import sys
from pathlib import Path

from grpc_tools import protoc

HERE = Path(__file__).resolve().parent
PROTO = HERE.parent.parent / "proto"
PACKAGE = HERE / "src" / "stampede"


def main() -> int:
    """Returns the exit code of protoc."""
    # What is no longer in the contracts goes, from the last build of a wheel too.
    for old in [*(path for path in PACKAGE.iterdir() if path.is_dir()), HERE / "build"]:
        shutil.rmtree(old, ignore_errors=True)
    found = (path.relative_to(PROTO) for path in (PROTO / "stampede").rglob("*.proto"))
    files = sorted(str(path) for path in found if path.parts[1] != "message")
    # The types of the stubs: a plugin that is installed beside this Python.
    typing = Path(sys.executable).parent / "protoc-gen-mypy_grpc"
    out = PACKAGE.parent
    return int(
        protoc.main(
            [
                "protoc",
                f"--proto_path={PROTO}",
                f"--proto_path={Path(protoc.__file__).parent / '_proto'}",
                f"--plugin=protoc-gen-mypy_grpc={typing}",
                f"--python_out={out}",
                f"--pyi_out={out}",
                f"--grpc_python_out={out}",
                f"--mypy_grpc_out=quiet:{out}",
                *files,
            ]
        )
    )


if __name__ == "__main__":
    sys.exit(main())
