"""What can go wrong in the compiler; every message is one line and says what to do.

CompilerError
├── ModelFileError      the model file is missing, damaged, or of a kind that cannot be compiled
├── QuantisationError   no such quantisation
├── TargetError         no such target, or none that fits this machine
└── BuildError          the artefact cannot be compiled or linked
"""

from __future__ import annotations

from mec_platform.domain.errors import MendableError


class CompilerError(MendableError):
    """The base of the compiler's errors."""


class ModelFileError(CompilerError):
    """The model file cannot be used."""


class QuantisationError(CompilerError):
    """No such quantisation."""


class TargetError(CompilerError):
    """No row of the target table fits."""


class BuildError(CompilerError):
    """The artefact cannot be compiled or linked."""
