"""What is built for tests on a real Kubernetes: Go modules at pinned versions, and two small programs of our own.

`PROGRAMS` make an API server (tests of operator and chart), `NODE_PROGRAMS` beside them a node that runs pods (e2e).
"""

from dataclasses import dataclass

KUBERNETES = "1.34.4"
ETCD = "v3.6.4"
HELM = "v3.22.0"
COREDNS = "v1.14.7"
PROGRAMS = ("etcd", "kube-apiserver", "kubectl", "kube-controller-manager", "helm")
KUBERNETES_PROGRAMS = (
    "kube-apiserver",
    "kubectl",
    "kube-controller-manager",
    "kubelet",
    "kube-proxy",
    "kube-scheduler",
)
NODE_PROGRAMS = ("kubelet", "kube-proxy", "kube-scheduler", "coredns", "pause")


@dataclass(frozen=True, slots=True)
class ProgramSource:
    """One Go module and the packages of it that become programs."""

    module: str
    version: str
    packages: dict[str, str]  # program -> package
    ldflags: str = "-s -w"
    main: str = ""  # a main.go of our own, which uses the module
    uses: tuple[str, ...] = ()  # packages to get for it

    @property
    def name(self) -> str:
        """Of the folder it is built in."""
        return next(iter(self.packages)) if self.main else self.module.rpartition("/")[2]

    def wanted(self, todo: dict[str, str]) -> list[str]:
        """Arguments of `go get`."""
        return [f"{package}@{self.version}" for package in self.uses or todo.values()]


def _set_at_link(names: dict[str, str]) -> str:
    return " ".join(["-s -w", *(f"-X {name}={value}" for name, value in names.items())])


MAJOR, MINOR, _ = KUBERNETES.split(".")
# Charts and clients read versions: a plain build of the server answers v0.0.0, one of helm templates for 1.20.
KUBERNETES_FLAGS = _set_at_link(
    {
        "k8s.io/component-base/version.gitVersion": f"v{KUBERNETES}",
        "k8s.io/component-base/version.gitMajor": MAJOR,
        "k8s.io/component-base/version.gitMinor": MINOR,
        "k8s.io/component-base/version.gitTreeState": "clean",
    }
)
HELM_FLAGS = _set_at_link(
    {
        "helm.sh/helm/v3/internal/version.version": HELM,
        "helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor": MAJOR,
        "helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor": MINOR,
        "helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor": MAJOR,
        "helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor": MINOR,
    }
)

# Only the plugins that a test cluster's Corefile names: the full set takes every cloud's libraries, 1.6 GB of modules.
COREDNS_PLUGINS = ("bind", "cache", "errors", "kubernetes", "loadbalance", "log", "ready")
COREDNS_MAIN = """package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
{imports}
)

func main() {{
	dnsserver.Directives = []string{{"bind", "ready", "log", "errors", "cache", "loadbalance", "kubernetes"}}
	coremain.Run()
}}
""".format(imports="\n".join(f'\t_ "github.com/coredns/coredns/plugin/{plugin}"' for plugin in COREDNS_PLUGINS))
PAUSE_MAIN = """// Command pause holds a pod's namespaces: it reaps orphans and ends on SIGINT or SIGTERM.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	c := make(chan os.Signal, 16)
	signal.Notify(c, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	for s := range c {
		if s != syscall.SIGCHLD {
			os.Exit(0)
		}
		for {
			if pid, _ := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 {
				break
			}
		}
	}
}
"""


SOURCES = (
    ProgramSource("go.etcd.io/etcd/server/v3", ETCD, {"etcd": "go.etcd.io/etcd/server/v3"}),
    ProgramSource(
        "k8s.io/kubernetes",
        f"v{KUBERNETES}",
        {name: f"k8s.io/kubernetes/cmd/{name}" for name in KUBERNETES_PROGRAMS},
        KUBERNETES_FLAGS,
    ),
    ProgramSource("helm.sh/helm/v3", HELM, {"helm": "helm.sh/helm/v3/cmd/helm"}, HELM_FLAGS),
    ProgramSource(
        "github.com/coredns/coredns",
        COREDNS,
        {"coredns": "."},
        main=COREDNS_MAIN,
        uses=(
            "github.com/coredns/coredns/coremain",
            *(f"github.com/coredns/coredns/plugin/{plugin}" for plugin in COREDNS_PLUGINS),
        ),
    ),
    ProgramSource("pause", "", {"pause": "."}, main=PAUSE_MAIN),
)
