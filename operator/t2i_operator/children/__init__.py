"""The children of a pool, as manifests: a pure function of the spec, the profile and the images."""

from t2i_operator.children.access import render_access
from t2i_operator.children.config import render_config
from t2i_operator.children.gateway import render_gateway
from t2i_operator.children.inputs import Images, Inputs
from t2i_operator.children.network import render_policies
from t2i_operator.children.workers import render_group
from t2i_operator.manifests import Manifest

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
        *render_gateway(inputs),
    )
