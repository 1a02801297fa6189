#!/usr/bin/env python3
"""Writes python/mindspore_serving/proto/ from proto/ms_service.proto, and the descriptors that the server hands out by
reflection, csrc/protocol/descriptor_tables.cc, from all .proto files here.

Run it after every change of the .proto file, with grpcio-tools installed:

    python proto/generate.py            # writes
    python proto/generate.py --check    # only says whether what is there is up to date

The modules are committed, so that neither a build nor a user needs protoc. protoc's own Python output refuses every
protobuf runtime older than the protoc that wrote it, and grpcio-tools' refuses every older grpcio; what is written
here holds the same descriptor without these pins and works with protobuf 5 and later and any current grpcio.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import tempfile

from google.protobuf import descriptor_pb2

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto" / "ms_service.proto"
PACKAGE = ROOT / "python" / "mindspore_serving" / "proto"
# The name under which users' own generated code knows the file.
REGISTERED_NAME = "mindspore_serving/proto/ms_service.proto"
WIDTH = 88

TABLES = ROOT / "csrc" / "protocol" / "descriptor_tables.cc"
# What the server tells about itself: the file, the name it is known by, and for a copy of it its package.
REFLECTED = [
    ("ms_service.proto", REGISTERED_NAME, None),
    ("health.proto", "grpc/health/v1/health.proto", None),
    ("reflection.proto", "grpc/reflection/v1/reflection.proto", None),
    ("reflection.proto", "grpc/reflection/v1alpha/reflection.proto", ("grpc.reflection.v1", "grpc.reflection.v1alpha")),
]

TABLES_HEAD = """\
// Compiled .proto files. Written by proto/generate.py; do not edit.
// clang-format off
#include "protocol/descriptors.h"

namespace msserving {
namespace {
"""

TABLE = """
constexpr uint8_t kBytes{i}[] = {{
{bytes}
}};
constexpr std::string_view kSymbols{i}[] = {{
{symbols}
}};
constexpr std::string_view kServices{i}[] = {{
{services}
}};
constexpr std::string_view kMessages{i}[] = {{
{messages}
}};
"""

TABLES_TAIL = """
constexpr FileDescriptor kFiles[] = {{
{files}
}};

}}  // namespace

std::span<const FileDescriptor> AllFileDescriptors() {{ return kFiles; }}

}}  // namespace msserving
"""

PB2 = '''\
"""Messages of {name}. Written by proto/generate.py; do not edit."""

from google.protobuf import descriptor_pool as _descriptor_pool
from google.protobuf.internal import builder as _builder

DESCRIPTOR = _descriptor_pool.Default().AddSerializedFile(
{descriptor}
)

_builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())
_builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, __name__, globals())
'''

PB2_GRPC_HEAD = '''\
"""Client and server classes of {name}. Written by proto/generate.py; do not edit."""

import grpc

from mindspore_serving.proto import ms_service_pb2
'''

SERVICE = '''

class {service}Stub:
    """Calls {full_name} over a channel."""

    def __init__(self, channel):
{stub_members}

class {service}Servicer:
    """What a server of {full_name} implements."""
{servicer_methods}

def add_{service}Servicer_to_server(servicer, server):
    """Has `server` answer {full_name} with `servicer`."""
    handlers = {{
{handlers}    }}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("{full_name}", handlers),))
'''

STUB_MEMBER = """\
        self.{method} = channel.unary_unary(
            "/{full_name}/{method}",
            request_serializer=ms_service_pb2.{input}.SerializeToString,
            response_deserializer=ms_service_pb2.{output}.FromString,
        )
"""

SERVICER_METHOD = '''
    def {method}(self, request, context):
        """{input} to {output}."""
        context.set_code(grpc.StatusCode.UNIMPLEMENTED)
        context.set_details("{method} is not implemented")
        raise NotImplementedError("{method} is not implemented")
'''

HANDLER = """\
        "{method}": grpc.unary_unary_rpc_method_handler(
            servicer.{method},
            request_deserializer=ms_service_pb2.{input}.FromString,
            response_serializer=ms_service_pb2.{output}.SerializeToString,
        ),
"""

GRPC_STUBS_HEAD = """\
# Types of ms_service_pb2_grpc.py. Written by proto/generate.py; do not edit.
from typing import Any

import grpc

from mindspore_serving.proto import ms_service_pb2
"""

GRPC_STUBS_SERVICE = """
class {service}Stub:
    def __init__(self, channel: grpc.Channel) -> None: ...
{stub_members}
class {service}Servicer:
{servicer_methods}
def add_{service}Servicer_to_server(servicer: {service}Servicer, server: grpc.Server) -> None: ...
"""


GRPC_STUBS_MEMBER = "    {method}: grpc.UnaryUnaryMultiCallable\n"
GRPC_STUBS_METHOD = (
    "    def {method}(self, request: ms_service_pb2.{input}, context: Any) -> ms_service_pb2.{output}: ...\n"
)


def compile_proto(into: pathlib.Path) -> tuple[descriptor_pb2.FileDescriptorProto, str]:
    """Returns the file's descriptor and protoc's type stubs for the messages."""
    file = compile_file(PROTO.name, REGISTERED_NAME, into, f"--pyi_out={into}")
    return file, (into / REGISTERED_NAME).with_name("ms_service_pb2.pyi").read_text()


def compile_file(source: str, name: str, into: pathlib.Path, *options: str) -> descriptor_pb2.FileDescriptorProto:
    """Returns the descriptor of a file beside this one, known as `name`."""
    from grpc_tools import protoc

    descriptor_file = into / "descriptor.bin"
    # A virtual path: the file appears under the name that it is to have.
    arguments = ["protoc", f"--proto_path={name}={PROTO.parent / source}", f"--descriptor_set_out={descriptor_file}"]
    if protoc.main([*arguments, *options, name]) != 0:
        raise SystemExit(f"protoc failed on {source}")
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptor_file.read_bytes())
    (file,) = files.file
    for message in file.message_type:
        drop_json_names(message)
    return file


def rename_package(file: descriptor_pb2.FileDescriptorProto, old: str, new: str) -> None:
    """The same file in another package: its own name and every reference to its types."""

    def renamed(type_name: str) -> str:
        return f".{new}.{type_name.removeprefix(f'.{old}.')}" if type_name.startswith(f".{old}.") else type_name

    def rename_fields(message: descriptor_pb2.DescriptorProto) -> None:
        for field in message.field:
            if field.type_name:
                field.type_name = renamed(field.type_name)
        for nested in message.nested_type:
            rename_fields(nested)

    file.package = new
    for message in file.message_type:
        rename_fields(message)
    for service in file.service:
        for method in service.method:
            method.input_type, method.output_type = renamed(method.input_type), renamed(method.output_type)


def symbols_of(file: descriptor_pb2.FileDescriptorProto) -> tuple[list[str], list[str], list[str]]:
    """The full names of everything a file defines, of its services and of its messages."""
    symbols: list[str] = []
    messages: list[str] = []

    def add_enum(scope: str, enum: descriptor_pb2.EnumDescriptorProto) -> None:
        symbols.append(f"{scope}.{enum.name}")
        symbols.extend(f"{scope}.{value.name}" for value in enum.value)  # an enum's values stand beside it

    def add_message(scope: str, message: descriptor_pb2.DescriptorProto) -> None:
        name = f"{scope}.{message.name}"
        symbols.append(name)
        messages.append(name)
        symbols.extend(f"{name}.{field.name}" for field in [*message.field, *message.oneof_decl])
        for nested in message.nested_type:
            add_message(name, nested)
        for enum in message.enum_type:
            add_enum(name, enum)

    for message in file.message_type:
        add_message(file.package, message)
    for enum in file.enum_type:
        add_enum(file.package, enum)
    services = [f"{file.package}.{service.name}" for service in file.service]
    for service, name in zip(file.service, services, strict=True):
        symbols.append(name)
        symbols.extend(f"{name}.{method.name}" for method in service.method)
    return symbols, services, messages


def descriptor_tables(scratch: pathlib.Path) -> str:
    """The C++ source with every reflected file."""
    text, files = TABLES_HEAD, []
    for i, (source, name, rename) in enumerate(REFLECTED):
        file = compile_file(source, name, scratch)
        if rename:
            rename_package(file, *rename)
        data = file.SerializeToString(deterministic=True)
        symbols, services, messages = ("\n".join(f'  "{one}",' for one in names) for names in symbols_of(file))
        rows = [", ".join(f"0x{byte:02x}" for byte in data[at : at + 18]) for at in range(0, len(data), 18)]
        text += TABLE.format(
            i=i, bytes=",\n".join(f"  {row}" for row in rows), symbols=symbols, services=services, messages=messages
        )
        files.append(f'  {{"{name}", kBytes{i}, kSymbols{i}, kServices{i}, kMessages{i}}},')
    return text + TABLES_TAIL.format(files="\n".join(files))


def drop_json_names(message: descriptor_pb2.DescriptorProto) -> None:
    """JSON names follow from the names; protoc leaves them out of its Python output as well."""
    for field in message.field:
        field.ClearField("json_name")
    for nested in message.nested_type:
        drop_json_names(nested)


def bytes_literal(data: bytes, indent: str = "    ") -> str:
    """`data` as adjacent bytes literals, one a line."""
    lines, line = [], b""
    for i in range(len(data)):
        longer = line + data[i : i + 1]
        if len(indent) + len(repr(longer)) > WIDTH:
            lines.append(indent + repr(line))
            longer = data[i : i + 1]
        line = longer
    return "\n".join([*lines, indent + repr(line)])


def grpc_modules(file: descriptor_pb2.FileDescriptorProto) -> tuple[str, str]:
    """The module with the stub and the servicer of each service, and its type stubs."""
    module = PB2_GRPC_HEAD.format(name=REGISTERED_NAME)
    stubs = GRPC_STUBS_HEAD
    for service in file.service:
        full_name = f"{file.package}.{service.name}"
        methods = []
        for method in service.method:
            if method.client_streaming or method.server_streaming:
                raise SystemExit(f"{full_name}/{method.name} streams; this generator knows unary calls only")
            methods.append(
                {
                    "full_name": full_name,
                    "method": method.name,
                    "input": method.input_type.rsplit(".", 1)[-1],
                    "output": method.output_type.rsplit(".", 1)[-1],
                }
            )
        module += SERVICE.format(
            service=service.name,
            full_name=full_name,
            stub_members="".join(STUB_MEMBER.format(**m) for m in methods),
            servicer_methods="".join(SERVICER_METHOD.format(**m) for m in methods),
            handlers="".join(HANDLER.format(**m) for m in methods),
        )
        stubs += GRPC_STUBS_SERVICE.format(
            service=service.name,
            stub_members="".join(GRPC_STUBS_MEMBER.format(**m) for m in methods),
            servicer_methods="".join(GRPC_STUBS_METHOD.format(**m) for m in methods),
        )
    return module, stubs


def generate() -> dict[pathlib.Path, str]:
    """The text of every file that is written."""
    with tempfile.TemporaryDirectory() as scratch:
        file, message_stubs = compile_proto(pathlib.Path(scratch))
        tables = descriptor_tables(pathlib.Path(scratch))
    module, grpc_stubs = grpc_modules(file)
    descriptor = bytes_literal(file.SerializeToString(deterministic=True))
    return {
        PACKAGE / "ms_service_pb2.py": PB2.format(name=REGISTERED_NAME, descriptor=descriptor),
        PACKAGE / "ms_service_pb2.pyi": (
            "# Types of ms_service_pb2.py. Written by proto/generate.py; do not edit.\n" + message_stubs
        ),
        PACKAGE / "ms_service_pb2_grpc.py": module,
        PACKAGE / "ms_service_pb2_grpc.pyi": grpc_stubs,
        TABLES: tables,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Writes the generated files from the .proto files here.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is out of date")
    check = parser.parse_args().check
    files = generate()
    stale = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if check:
            print(f"out of date: {path.relative_to(ROOT)} (run proto/generate.py)")
        else:
            path.write_text(files[path])
            print(f"wrote {path.relative_to(ROOT)}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
