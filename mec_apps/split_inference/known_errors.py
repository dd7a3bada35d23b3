"""Errors by which a node or gateway says at its start what is wrong; the command line shows them as one line."""

from __future__ import annotations

from mec_apps.split_inference.gateway.chat import ChatTemplateError
from mec_apps.split_inference.membership import JoinError
from mec_apps.split_inference.model_package import PackageError
from mec_apps.split_inference.node.compiled_model import ArtefactError

STARTUP_ERRORS: tuple[type[Exception], ...] = (ArtefactError, ChatTemplateError, JoinError, PackageError, ValueError)
