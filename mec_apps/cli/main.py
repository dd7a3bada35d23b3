"""The `mec` command and its error handling: what users can mend is one line on stderr and exit code 1."""

from __future__ import annotations

import sys

import click
import grpc.aio

from mec_apps.cli.applications import app
from mec_apps.cli.audit import audit
from mec_apps.cli.bench import bench
from mec_apps.cli.certs.command import certs
from mec_apps.cli.chat import chat
from mec_apps.cli.clients import client
from mec_apps.cli.compile import compile_command
from mec_apps.cli.credentials import credentials
from mec_apps.cli.demo.command import demo
from mec_apps.cli.gateway import gateway
from mec_apps.cli.inspect import plan, status, watch
from mec_apps.cli.models import models
from mec_apps.cli.node import node
from mec_apps.cli.notifications import notifications
from mec_apps.cli.peers import peers
from mec_apps.cli.profile.command import profile
from mec_apps.cli.reconfigure import reconfigure
from mec_apps.cli.serve.command import serve
from mec_apps.cli.services import services
from mec_apps.cli.state_files import backup, restore
from mec_apps.cli.store import store
from mec_platform.domain.errors import MendableError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
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


for command in (
    app,
    audit,
    backup,
    bench,
    certs,
    chat,
    client,
    compile_command,
    credentials,
    demo,
    gateway,
    models,
    node,
    notifications,
    peers,
    plan,
    profile,
    reconfigure,
    restore,
    serve,
    services,
    status,
    store,
    watch,
):
    cli.add_command(command)


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
