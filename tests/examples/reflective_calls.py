"""Calls made of JSON alone, as grpcurl makes them: names and types are learned from the server's reflection."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

TIMEOUT_S = 30.0


class ReflectiveClient:
    """A client that knows no stubs. Blocks; to be used in a thread."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self._database = ProtoReflectionDescriptorDatabase(self._channel)
        self._pool = descriptor_pool.DescriptorPool(self._database)

    def close(self) -> None:
        self._channel.close()

    def services(self) -> list[str]:
        """Full names."""
        return sorted(self._database.get_services())

    def methods(self, service: str) -> list[str]:
        return [each.name for each in self._pool.FindServiceByName(service).methods]

    def call(self, method: str, request: Any, at_most: int | None = None) -> list[Any]:
        """Answers of a method `package.Service/Method` to one message; after `at_most` of them the call is given up.

        Raises ParseError where the message has fields that the method's type has not.
        """
        service, _, name = method.partition("/")
        described = self._pool.FindServiceByName(service).FindMethodByName(name)
        sent = message_factory.GetMessageClass(described.input_type)()
        json_format.ParseDict(request, sent, descriptor_pool=self._pool)
        kind = f"{_manner(described.client_streaming)}_{_manner(described.server_streaming)}"
        invoke = getattr(self._channel, kind)(
            f"/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=message_factory.GetMessageClass(described.output_type).FromString,
        )
        answers = invoke(iter([sent]) if described.client_streaming else sent, timeout=TIMEOUT_S)
        if not described.server_streaming:
            return [json_format.MessageToDict(answers)]
        found = []
        for answer in answers:
            found.append(json_format.MessageToDict(answer))
            if len(found) == at_most:
                answers.cancel()
                break
        return found


def _manner(streaming: bool) -> str:
    return "stream" if streaming else "unary"
