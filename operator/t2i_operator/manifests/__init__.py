"""The children of a pool, as manifests: a pure function of the spec, the profile and the images.

Rendering must not change by itself: a pod template that says something else restarts every pod at an upgrade.
"""

from t2i_operator.manifests.auditor import render_auditor
from t2i_operator.manifests.child import Images, Inputs, Manifest
from t2i_operator.manifests.gateway import render_access, render_gateway
from t2i_operator.manifests.network import render_policies
from t2i_operator.manifests.outside import render_outside
from t2i_operator.manifests.pod import render_config
from t2i_operator.manifests.workers import render_group

__all__ = ["Images", "Inputs", "render_children"]


def render_children(inputs: Inputs) -> tuple[Manifest, ...]:
    """Everything the pool needs, in the order in which it is written: what is referred to comes first.

    Raises:
        TemplateInvalid: a pod template cannot be merged.
    """
    groups = [manifest for group in inputs.spec.worker_groups for manifest in render_group(inputs, group)]
    return (
        render_config(inputs),
        *render_access(inputs),
        *render_policies(inputs),
        *groups,
        *render_auditor(inputs),
        *render_gateway(inputs),
        *render_outside(inputs),
    )
