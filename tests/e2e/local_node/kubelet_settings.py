"""The kubelet's configuration file. Settings that differ from the usual ones say why."""

from typing import Any

from local_node.places import Places


def kubelet_settings(places: Places) -> dict[str, Any]:
    """For our one node."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": places.node_address,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(places.folder / "pki" / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{places.cgroup}",
        "failSwapOn": False,
        "failCgroupV1": False,
        "oomScoreAdj": 0,
        "maxPods": 100,
        "containerRuntimeEndpoint": f"unix://{places.containerd_socket}",
        "volumePluginDir": str(places.folder / "plugins"),
        "clusterDNS": [places.control_address],
        "clusterDomain": places.domain,
        "resolvConf": str(places.folder / "resolv.conf"),
        # A developer's disk may be full: nothing is evicted, no image vanishes.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "nodeStatusUpdateFrequency": "2s",
        "nodeLeaseDurationSeconds": 8,
        "registerNode": True,
        "featureGates": {"KubeletCrashLoopBackOffMax": True},
        "crashLoopBackOff": {"maxContainerRestartPeriod": "5s"},
    }
