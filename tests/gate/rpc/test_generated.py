"""The code of proto/cexec/v1/cexec.proto is what the generator writes."""

from __future__ import annotations

import runpy
from importlib.metadata import version
from pathlib import Path

from google.protobuf.descriptor import FieldDescriptor

from cexec.gate.rpc.wire import cexec_pb2

ROOT = Path(__file__).parents[3]
GENERATOR = runpy.run_path(str(ROOT / "proto" / "generate.py"))


def test_the_checked_in_code_is_current(tmp_path: Path) -> None:
    assert version("grpcio-tools") == "1.75.1", "another version writes other code: make proto, and name it here"
    GENERATOR["generate"](tmp_path)
    place = Path(GENERATOR["PLACE"])
    written = {path.name for path in (tmp_path / place).iterdir()}
    assert written == set(GENERATOR["FILES"])
    for name in written:
        assert (ROOT / place / name).read_text() == (tmp_path / place / name).read_text(), "run: make proto"


def test_the_first_value_of_each_enumeration_means_that_none_was_given() -> None:
    file = cexec_pb2.DESCRIPTOR
    enums = [*file.enum_types_by_name.values()]
    for message in file.message_types_by_name.values():
        enums += message.enum_types
        assert all(field.number <= len(message.fields) for field in message.fields)  # none was taken away
        for field in message.fields:
            assert field.type != FieldDescriptor.TYPE_GROUP
    assert len(enums) >= 3
    for enum in enums:
        assert enum.values_by_number[0].name.endswith("_UNSPECIFIED")
