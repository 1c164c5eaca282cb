"""Server reflection in both of its versions: newer tools (ghz, grpcurl, Postman) ask for v1, grpcio serves v1alpha.

The versions differ in the package's name alone, so one servicer answers both. Tools ask for the file of every service
that is listed. So the file of v1 is made from that of v1alpha.
"""

from collections.abc import Sequence

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_reflection.v1alpha import reflection, reflection_pb2

FILE = "grpc/reflection/v1/reflection.proto"
SERVICE = "grpc.reflection.v1.ServerReflection"
METHOD = "ServerReflectionInfo"


def enable_reflection(server: grpc.aio.Server, services: Sequence[str]) -> None:
    """Let clients explore these services, and reflection itself."""
    _describe()
    names = (*services, reflection.SERVICE_NAME, SERVICE)
    reflection.enable_server_reflection(names, server)
    servicer = reflection.aio.ReflectionServicer(names)
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: method}),))


def _describe() -> None:
    """Know the file of v1; once a process."""
    pool = descriptor_pool.Default()
    try:
        pool.FindFileByName(FILE)
    except KeyError:
        pool.AddSerializedFile(_file_of_v1().SerializeToString())


def _file_of_v1() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto.FromString(reflection_pb2.DESCRIPTOR.serialized_pb)
    older, package = f".{file.package}.", SERVICE.rpartition(".")[0]
    file.name, file.package = FILE, package
    file.ClearField("options")  # names of generated code, and that v1alpha is deprecated
    for message in file.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = field.type_name.replace(older, f".{package}.")
    for method in file.service[0].method:
        method.input_type = method.input_type.replace(older, f".{package}.")
        method.output_type = method.output_type.replace(older, f".{package}.")
    return file
