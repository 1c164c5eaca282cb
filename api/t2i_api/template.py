"""`template` of worker groups, gateway and auditor: overrides of their pods, and what of a pod stays the operator's.

A template is flat: some fields are the container's, `labels` and `annotations` the pod's metadata, all others fields of
a pod's spec. Fields that are not named here reach the pod as they are; the API server judges them there. The fields
named here are those that a rule reads. Most of them are refused: with another value the pod would not be found, not be
ready, or lose its requests.
"""

from typing import Annotated, Any

from pydantic import ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from t2i_api.part import Part

_Object = dict[str, Any]
_Objects = Annotated[tuple[_Object, ...], Field(max_length=32)]
_Texts = Annotated[tuple[str, ...], Field(max_length=32)]


class OpenPart(Part):
    """A part with fields that only the API server knows. Of those a null is kept: it takes something of ours away."""

    model_config = ConfigDict(extra="allow")

    @model_serializer(mode="wrap")
    def _with_nulls(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        nulls = {name: None for name, value in (self.model_extra or {}).items() if value is None}
        return {**nulls, **handler(self)}


class TemplateEntry(OpenPart):
    """An entry that is told from others by its name."""

    name: Annotated[str, Field(max_length=253)]
    """Its name; an entry of the operator's with the same name is merged with it."""


class TemplateMount(OpenPart):
    """A mount that is told from others by its path."""

    mount_path: Annotated[str, Field(max_length=512)]
    """Where it is mounted; a mount of the operator's at the same path is merged with it."""


class PodTemplatePart(OpenPart):
    """Overrides of a pod template."""

    env: Annotated[tuple[TemplateEntry, ...], Field(max_length=256)] | None = None
    """Variables of the container, merged by name."""
    volumes: Annotated[tuple[TemplateEntry, ...], Field(max_length=128)] | None = None
    """Volumes of the pod, merged by name."""
    volume_mounts: Annotated[tuple[TemplateMount, ...], Field(max_length=64)] | None = None
    """Mounts of the container, merged by path."""
    containers: Annotated[tuple[TemplateEntry, ...], Field(max_length=32)] | None = None
    """Further containers of the pod."""
    extra_args: Annotated[tuple[Annotated[str, Field(max_length=1024)], ...], Field(max_length=64)] | None = None
    """Further flags of the container's command line."""
    metadata: _Object | None = None
    """Refused: labels and annotations stand directly in the template."""
    spec: _Object | None = None
    """Refused: the fields of a pod's spec stand directly in the template."""
    name: str | None = None
    """Refused: the operator chooses names."""
    restart_policy: str | None = None
    """Refused: it is always Always."""
    hostname: str | None = None
    """Refused: the pod's name is its host name."""
    subdomain: str | None = None
    """Refused: the group's Service is it."""
    termination_grace_period_seconds: Annotated[int, Field(ge=0, le=2**31 - 1, strict=True)] | None = None
    """Refused: it follows from spec.slo."""
    ephemeral_containers: _Objects | None = None
    """Refused: kubectl debug adds them to a pod."""
    command: _Texts | None = None
    """Refused: see extraArgs."""
    args: _Texts | None = None
    """Refused: see extraArgs."""
    ports: _Objects | None = None
    """Refused: Services and probes count on the operator's."""
    liveness_probe: _Object | None = None
    """Refused: the operator's."""
    readiness_probe: _Object | None = None
    """Refused: the operator's."""
    startup_probe: _Object | None = None
    """Refused: the operator's."""
    lifecycle: _Object | None = None
    """Refused: the operator's, so that a pod that goes ends its requests first."""

    @property
    def overrides(self) -> dict[str, Any]:
        """What the owner wrote, as plain data."""
        return self.model_dump(by_alias=True, exclude_unset=True, mode="json")


class WorkerTemplatePart(PodTemplatePart):
    """Overrides of the workers' pod template: resources, nodeSelector, tolerations, env, volumes. Local mode ignores
    it."""


class GatewayTemplatePart(PodTemplatePart):
    """Overrides of the gateways' pod template, merged as the workers'. Local mode ignores it."""

    service_account_name: str | None = None
    """Refused: the gateway reads its pool and its workers by an account of its own."""
    service_account: str | None = None
    """Refused: the old name of serviceAccountName."""
    automount_service_account_token: Annotated[bool, Field(strict=True)] | None = None
    """Refused: without its token a gateway finds neither pool nor workers."""


class AuditorTemplatePart(PodTemplatePart):
    """Overrides of the auditor's pod template, merged as the workers'. Local mode ignores it."""
