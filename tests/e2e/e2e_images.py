"""The three images, built from containers/ with buildah: once for each state of the files that go into them.

A tag is a digest of those files, so an image that exists is right. The base is Debian with its Python and its CPU build
of PyTorch (`containers/base-image`), because a machine without a registry has no other; `E2E_BASE_IMAGE` names another
one, `E2E_TORCH` says then where PyTorch comes from (`containers/install-packages`).
"""

import hashlib
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from local_node.places import NodeError

ROOT = Path(__file__).parents[2]
REPOSITORY = "localhost/t2i-serving"
DEBIAN_BASE = "localhost/t2i-base:trixie"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
NAMES = ("operator", "gateway", "worker")
BUILD_LIMIT_S = 1800.0
_COPY = re.compile(r"^COPY (?!--from)(.+) \S+$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Image:
    """A built image; `digest` is of what it was built from."""

    name: str
    digest: str

    @property
    def repository(self) -> str:
        """Without the tag."""
        return f"{REPOSITORY}/{self.name}"

    @property
    def reference(self) -> str:
        """Repository and tag."""
        return f"{self.repository}:{self.digest}"


def sources_of(name: str) -> list[Path]:
    """Every file that a container file copies, and itself."""
    container_file = ROOT / "containers" / f"{name}.Containerfile"
    copied = [ROOT / part for line in _COPY.findall(container_file.read_text()) for part in line.split()]
    files = [file for path in copied for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()]
    return sorted({container_file, *(file for file in files if "__pycache__" not in file.parts)})


def image_of(name: str, base: str) -> Image:
    """The image as it should be."""
    digest = hashlib.sha256(base.encode())
    for path in sources_of(name):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return Image(name, digest.hexdigest()[:12])


def build_images(say: Callable[[str], None]) -> dict[str, Image]:
    """Build what is missing; older images of ours are removed.

    Raises:
        NodeError: no buildah, or a build failed.
    """
    base = os.environ.get("E2E_BASE_IMAGE", "")
    images = {name: image_of(name, base) for name in NAMES}
    missing = [name for name, image in images.items() if not _exists(image.reference)]
    if missing and not base:
        say("images: the base, from Debian's archive, unless it is there")
        _run([str(ROOT / "containers" / "base-image"), DEBIAN_BASE, "torch"])
    for name in missing:
        say(f"images: {images[name].reference}")
        _build(images[name], base)
        _remove_older(images[name])
    return images


def push_command(image: Image) -> list[str]:
    """Writes the image to standard output, as a docker-archive."""
    return ["buildah", "push", "--quiet", image.reference, f"docker-archive:/dev/stdout:{image.reference}"]


def storage() -> dict[str, str]:
    """Buildah's settings where there is no user session: a real overlay, no container of its own for each step."""
    return {"STORAGE_DRIVER": "overlay", "BUILDAH_ISOLATION": "chroot", **os.environ}


def _build(image: Image, base: str) -> None:
    if base:
        arguments = {"BASE_IMAGE": base, "TORCH": os.environ.get("E2E_TORCH", "lock")}
    else:
        arguments = {"BASE_IMAGE": f"{DEBIAN_BASE}-torch" if image.name == "worker" else DEBIAN_BASE}
        arguments |= {"TORCH": "base"} if image.name == "worker" else {}
    command = ["buildah", "build", "--quiet", "--layers", "--file", f"containers/{image.name}.Containerfile"]
    for key, value in arguments.items():
        command += ["--build-arg", f"{key}={value}"]
    if CERTIFICATES.exists():  # a proxy with an authority of its own
        command += ["--volume", f"{CERTIFICATES}:{CERTIFICATES}:ro"]
    _run([*command, "--tag", image.reference, "."])


def _exists(reference: str) -> bool:
    try:
        _run(["buildah", "inspect", "--type", "image", reference])
    except NodeError:
        return False
    return True


def _remove_older(image: Image) -> None:
    listed = _run(["buildah", "images", "--format", "{{.Name}}:{{.Tag}}", "--filter", f"reference={image.repository}"])
    for reference in listed.split():
        if reference != image.reference and reference.startswith(f"{image.repository}:"):
            _run(["buildah", "rmi", reference])


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=storage(), capture_output=True, text=True, timeout=BUILD_LIMIT_S, check=False
        )
    except FileNotFoundError as error:
        raise NodeError(
            f"{command[0]} is not installed: on Debian and Ubuntu: apt-get install buildah debootstrap; or push the "
            "images of containers/ yourself and set E2E_KUBECONFIG, E2E_REGISTRY and E2E_TAG"
        ) from error
    if done.returncode != 0:
        raise NodeError(f"{' '.join(command[:4])}: {(done.stderr or done.stdout).strip()[-1500:]}")
    return done.stdout
