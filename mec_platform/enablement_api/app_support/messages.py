"""Messages of the application support API (ETSI GS MEC 011 clause 7.1) and their translation to domain values."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from mec_platform.domain.applications import AppDescription, AppInstance, OperationAction
from mec_platform.domain.services import JsonText
from mec_platform.enablement_api import endpoints
from mec_platform.enablement_api.endpoints import CategoryRefMessage, EndPointMessage, JsonObject, NonEmpty


class ServiceDependency(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A service that an application requires or may use (MEC 010-2 clause 6.2.1.17)."""

    ser_name: NonEmpty
    ser_category: CategoryRefMessage | None = None
    version: str
    ser_transport_dependencies: list[JsonObject] | None = None
    requested_permissions: Any = None


class FeatureDependency(msgspec.Struct, frozen=True, rename="camel"):
    """A feature of the platform that an application requires or may use (MEC 010-2 clause 6.2.1.8)."""

    feature_name: NonEmpty
    version: str


class AppRequirements(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The attributes of AppInfo that the platform keeps and returns without acting on them."""

    app_service_required: list[ServiceDependency] | None = None
    app_service_optional: list[ServiceDependency] | None = None
    app_feature_required: list[FeatureDependency] | None = None
    app_feature_optional: list[FeatureDependency] | None = None
    app_profile: JsonObject | None = None


class AppInfo(AppRequirements, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """AppInfo, clause 7.1.2.6, without the id, which is the platform's."""

    app_name: NonEmpty
    app_provider: str | None = None
    app_category: CategoryRefMessage | None = None
    app_d_id: str | None = msgspec.field(default=None, name="appDId")
    endpoint: EndPointMessage | None = None
    is_ins_by_mec: bool | None = None


class AppRegistration(AppInfo, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """AppInfo as a new registration brings it. `appInstanceId` is read beside `isInsByMec` only: it then names the instance
    that the platform has been asked to make (clause 7.1.2.6)."""

    app_instance_id: str = ""


class RegisteredAppInfo(AppInfo, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """AppInfo as the platform answers it."""

    app_instance_id: str


class AppReadyConfirmation(msgspec.Struct, frozen=True):
    """Clause 7.1.4.4."""

    indication: Literal["READY"]


class AppTerminationConfirmation(msgspec.Struct, frozen=True, rename="camel"):
    """Clause 7.1.4.3."""

    operation_action: OperationAction


def to_description(message: AppInfo, *, instantiated_by_mec: bool = False) -> AppDescription:
    """The domain's description, of an instance that an operator has made if the message or who calls says so."""
    return AppDescription(
        name=message.app_name,
        provider=message.app_provider,
        descriptor_id=message.app_d_id,
        category=endpoints.to_category(message.app_category),
        endpoint=None if message.endpoint is None else endpoints.to_endpoint(message.endpoint),
        instantiated_by_mec=instantiated_by_mec or message.is_ins_by_mec is True,
        requirements=_requirements(message),
    )


def from_app(app: AppInstance) -> RegisteredAppInfo:
    """The registration as the platform answers it."""
    requirements = msgspec.json.decode(app.requirements, type=AppRequirements)
    return RegisteredAppInfo(
        app_instance_id=app.app_instance_id,
        app_name=app.name,
        app_provider=app.provider,
        app_d_id=app.descriptor_id,
        app_category=endpoints.from_category(app.category),
        endpoint=None if app.endpoint is None else endpoints.from_endpoint(app.endpoint),
        is_ins_by_mec=app.instantiated_by_mec,
        **msgspec.structs.asdict(requirements),
    )


def _requirements(message: AppInfo) -> JsonText:
    kept = {name: getattr(message, name) for name in AppRequirements.__struct_fields__}
    return JsonText(msgspec.json.encode(AppRequirements(**kept)).decode())
