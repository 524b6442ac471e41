#!/usr/bin/env python3
"""Compares our protocol with the descriptors of an installed `clarifai_grpc`, the reference for names and numbers.

    check_protos.py DESCRIPTOR_SET [--older]

DESCRIPTOR_SET is a serialised FileDescriptorSet of our files, such as protoc's `--descriptor_set_out` or protox
writes. Everything of ours in the package `clarifai.api` and below must be in the reference too, and the same: fields by
number, name, type, label, packing and oneof, enum values, and the signatures of RPCs. What we leave out is no
difference. `--older` is for a release that lacks some of ours: what it lacks is listed without being an error, and a
number that grew from 32 to 64 bits, which stays the same on the wire, is let pass.

Prints one line for each difference. Exit code 0: none. 1: some. 2: wrong usage.
"""
import argparse
import sys

from clarifai_grpc.grpc.api import resources_pb2, service_pb2
from clarifai_grpc.grpc.api.status import status_code_pb2, status_pb2
from google.protobuf import descriptor_pb2
from google.protobuf.message import DecodeError

PACKAGE = "clarifai.api"
REFERENCE_MODULES = [resources_pb2, service_pb2, status_pb2, status_code_pb2]

Field = descriptor_pb2.FieldDescriptorProto
WIDENED = {(Field.TYPE_UINT64, Field.TYPE_UINT32), (Field.TYPE_INT64, Field.TYPE_INT32)}
LENGTH_DELIMITED = {Field.TYPE_STRING, Field.TYPE_BYTES, Field.TYPE_MESSAGE, Field.TYPE_GROUP}


class Index:
    """Every message, enum and method of some files, by full name."""

    def __init__(self, files):
        self.messages, self.enums, self.methods = {}, {}, {}
        for file in files:
            if file.package != PACKAGE and not file.package.startswith(PACKAGE + "."):
                continue
            for message in file.message_type:
                self._message(file, file.package, message)
            for enum in file.enum_type:
                self.enums[f"{file.package}.{enum.name}"] = enum
            for service in file.service:
                for method in service.method:
                    self.methods[f"{file.package}.{service.name}.{method.name}"] = method

    def _message(self, file, scope, message):
        name = f"{scope}.{message.name}"
        self.messages[name] = (file, message)
        for nested in message.nested_type:
            self._message(file, name, nested)
        for enum in message.enum_type:
            self.enums[f"{name}.{enum.name}"] = enum


def reference():
    files = []
    for module in REFERENCE_MODULES:
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        files.append(file)
    return Index(files)


def packed(file, field):
    """Whether a repeated number stands in one block; None where the question makes no sense."""
    if field.label != Field.LABEL_REPEATED or field.type in LENGTH_DELIMITED:
        return None
    if field.options.HasField("packed"):
        return field.options.packed
    return file.syntax == "proto3"


def describe(file, message, field):
    """What must be equal, as words for the report."""
    oneof = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else None
    return {
        "name": field.name,
        "type": Field.Type.Name(field.type),
        "of": field.type_name,
        "label": Field.Label.Name(field.label),
        "packed": packed(file, field),
        "oneof": oneof,
        "optional": field.proto3_optional,
    }


def compare_messages(ours, theirs, older):
    for name, (file, message) in sorted(ours.messages.items()):
        if name not in theirs.messages:
            yield "lacks", f"message {name}"
            continue
        their_file, their_message = theirs.messages[name]
        their_fields = {field.number: field for field in their_message.field}
        their_numbers = {field.name: field.number for field in their_message.field}
        for field in message.field:
            where = f"{name}.{field.name} = {field.number}"
            their_field = their_fields.get(field.number)
            if their_field is None:
                if field.name in their_numbers:
                    yield "differs", f"{where}: the reference has number {their_numbers[field.name]}"
                elif any(r.start <= field.number < r.end for r in their_message.reserved_range):
                    yield "differs", f"{where}: the reference reserves this number"
                else:
                    yield "lacks", where
                continue
            our_words = describe(file, message, field)
            their_words = describe(their_file, their_message, their_field)
            for key, value in our_words.items():
                if value == their_words[key]:
                    continue
                if key == "type" and older and (field.type, their_field.type) in WIDENED:
                    continue
                yield "differs", f"{where}: {key} is {value}, in the reference {their_words[key]}"


def compare_enums(ours, theirs):
    for name, enum in sorted(ours.enums.items()):
        if name not in theirs.enums:
            yield "lacks", f"enum {name}"
            continue
        their_values = {value.name: value.number for value in theirs.enums[name].value}
        for value in enum.value:
            if value.name not in their_values:
                yield "lacks", f"enum value {name}.{value.name} = {value.number}"
            elif their_values[value.name] != value.number:
                number = their_values[value.name]
                yield "differs", f"enum value {name}.{value.name} = {value.number}: the reference has {number}"


def compare_methods(ours, theirs):
    for name, method in sorted(ours.methods.items()):
        if name not in theirs.methods:
            yield "lacks", f"rpc {name}"
            continue
        for key in ["input_type", "output_type", "client_streaming", "server_streaming"]:
            our_value, their_value = getattr(method, key), getattr(theirs.methods[name], key)
            if our_value != their_value:
                yield "differs", f"rpc {name}: {key} is {our_value}, in the reference {their_value}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("descriptor_set")
    parser.add_argument("--older", action="store_true", help="the reference may lack some of ours")
    arguments = parser.parse_args()

    descriptor_set = descriptor_pb2.FileDescriptorSet()
    try:
        with open(arguments.descriptor_set, "rb") as file:
            descriptor_set.ParseFromString(file.read())
    except (OSError, DecodeError) as error:
        print(f"{arguments.descriptor_set}: {error}", file=sys.stderr)
        return 2
    ours, theirs = Index(descriptor_set.file), reference()
    if not ours.messages or not ours.methods:
        print(f"{arguments.descriptor_set}: no message or no RPC of {PACKAGE} in it", file=sys.stderr)
        return 2

    failed = False
    for findings in (
        compare_messages(ours, theirs, arguments.older),
        compare_enums(ours, theirs),
        compare_methods(ours, theirs),
    ):
        for kind, text in findings:
            tolerated = kind == "lacks" and arguments.older
            failed = failed or not tolerated
            ending = " is not in the reference" if kind == "lacks" else ""
            print(f"{'note' if tolerated else 'error'}: {text}{ending}")
    counts = f"{len(ours.messages)} messages, {len(ours.enums)} enums, {len(ours.methods)} RPCs"
    print(f"{counts}: {'they differ from the reference' if failed else 'as in the reference'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
