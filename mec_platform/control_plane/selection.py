"""Which deployment a request is for: several models run side by side, each with its own nodes, plan and epochs.

The services of the four modules ask; `deployments` answers.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

import grpc

from mec_platform.rpc.endpoints import Context

Chosen_co = TypeVar("Chosen_co", covariant=True)


class UnknownDeployment(Exception):
    """No deployment of that name, or several and no name; the message tells the names."""


class Selection(Protocol[Chosen_co]):
    """What a service needs of `deployments`."""

    def select(self, model: str) -> Chosen_co:
        """The deployment of `model`, "" for the only one. Raises UnknownDeployment."""


async def select_deployment(deployments: Selection[Chosen_co], model: str, context: Context) -> Chosen_co:
    """What a request's `model` field stands for; aborts the call with INVALID_ARGUMENT where that is not clear."""
    try:
        return deployments.select(model)
    except UnknownDeployment as error:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
