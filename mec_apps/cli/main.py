"""The `mec` command and its error handling: what users can mend is one line on stderr and exit code 1."""

from __future__ import annotations

import importlib
import sys

import click
import grpc.aio

from mec_platform.domain.errors import MendableError

COMMANDS = {
    "app": "applications:app",
    "audit": "audit:audit",
    "backup": "state_files:backup",
    "bench": "bench:bench",
    "certs": "certs.command:certs",
    "chat": "chat:chat",
    "client": "clients:client",
    "compile": "compile:compile_command",
    "credentials": "credentials:credentials",
    "demo": "demo.command:demo",
    "gateway": "gateway:gateway",
    "join-token": "join_tokens:join_token",
    "models": "models:models",
    "node": "node:node",
    "notifications": "notifications:notifications",
    "peers": "peers:peers",
    "plan": "plan:plan",
    "policy": "policy:policy",
    "profile": "profile.command:profile",
    "radio": "radio:radio",
    "reconfigure": "reconfigure:reconfigure",
    "replay": "replay:replay_command",
    "restore": "state_files:restore",
    "serve": "serve.command:serve",
    "services": "services:services",
    "simulate": "simulate.command:simulate",
    "status": "inspect:status",
    "store": "store:store",
    "testbed": "testbed.command:testbed",
    "watch": "inspect:watch",
}
"""Where each command is, below `mec_apps.cli`: a command loads what it needs itself and not what all others need."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command = getattr(importlib.import_module(f"mec_apps.cli.{module}"), name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="mec-platform")
def cli() -> None:
    """An ETSI MEC-style edge platform that cuts large foundation models over edge nodes and re-cuts them live.

    \b
    Begin with:   mec demo
    By hand:      mec serve      (terminal 1)
                  mec node --name edge-1      (terminal 2, more for more nodes)
                  mec gateway    (terminal 3)
                  mec chat "What is multi-access edge computing?"
    """


def main() -> None:
    """Entry point of the console script."""
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except MendableError as error:
        _fail(str(error))
    except grpc.aio.AioRpcError as error:
        _fail(error.details() or error.code().name)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:  # a full disk, a folder that is not there, a file that must not be read
        _fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(message: str) -> None:
    sys.stderr.write(f"error: {message}\n")
    sys.exit(1)
