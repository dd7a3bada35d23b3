"""Servers in processes of their own for the benchmarks of the APIs: `mec serve`, and the aiohttp server that is its limit."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.benchmarks.machine import BenchmarkError


class ServerProcess:
    """A child process that prints one line when it serves; a context manager that ends it.

    Raises:
        BenchmarkError: it did not start; the message says what it said.
    """

    def __init__(self, module: str, *arguments: object) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (open as long as the process lives)
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        assert self._process.stdout is not None
        self.first_line = self._process.stdout.readline()
        if not self.first_line:
            self._process.wait()
            self._errors.seek(0)
            raise BenchmarkError(f"{module} did not start: {self._errors.read().strip()}")

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def kill(self) -> None:
        """Ends it where it stands, as a crash would."""
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.communicate()
        self._errors.close()


class LimitServer(ServerProcess):
    """aiohttp with handlers that do nothing, on uvloop as `mec serve` runs."""

    def __init__(self) -> None:
        super().__init__("tests.benchmarks.limit_server")
        self.port = int(self.first_line)


class EmptyGrpcServer(ServerProcess):
    """grpc.aio with a unary method that does nothing, on uvloop and with the options of `mec serve`."""

    def __init__(self) -> None:
        super().__init__("tests.benchmarks.empty_grpc_server")
        self.address = self.first_line.strip()


class ServedPlatform(ServerProcess):
    """`mec serve` over a file or etcd; the same `rest_port` again for one that takes the place of a killed one."""

    def __init__(self, state: Path | str, rest_port: int = 0, *options: object) -> None:
        ports = ("--grpc-port", 0, "--rest-port", rest_port)
        super().__init__("mec_apps.cli", "serve", *ports, "--state", state, *options)
        # "platform ready: rest http://127.0.0.1:8081, grpc 127.0.0.1:50051, ..."
        self.rest = self.first_line.partition("rest ")[2].partition(",")[0]
        self.grpc = self.first_line.partition("grpc ")[2].partition(",")[0]
        self.port = int(self.rest.rpartition(":")[2])
