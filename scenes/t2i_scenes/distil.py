"""Distil the trained model into one of few unguided steps: `python -m t2i_scenes.distil --out DIR`.

Rectified flow from the teacher's own pairs (reflow, arXiv 2209.03003; one student for all steps, as InstaFlow,
arXiv 2309.06380). The teacher draws captions with its full guided schedule. The student starts as a copy of its UNet.
It learns the straight line from each noise to the image that the teacher made of it:

    x_s = (1 - s) * image + s * noise        student(x_s, s, caption) -> noise - image

Guidance is in the pairs, so the student runs without unprompted rows. Its text encoder is the teacher's, unchanged.
After a stop the same command continues: pairs are kept in parts, weights in a checkpoint.
"""

import argparse
import logging
import math
import time
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn

from t2i_scenes.captions import caption
from t2i_scenes.export import export_student
from t2i_scenes.generating import sample_scene
from t2i_scenes.sampling import ScenesModel

log = logging.getLogger("t2i_scenes.distil")


@dataclass(frozen=True, slots=True)
class DistilHyperparameters:
    """`steps` of `batch` samples over `pairs` images of the teacher, which are drawn `drawn_at_once` at a time."""

    seed: int = 20261
    threads: int = 2
    pairs: int = 3072
    drawn_at_once: int = 256
    steps: int = 480
    batch: int = 48
    lr: float = 3.0e-4
    warmup_steps: int = 30
    #: The cosine ends at this share of the peak learning rate.
    final_lr_fraction: float = 0.05
    max_gradient_norm: float = 1.0
    ema_decay: float = 0.99
    #: Share of samples at noise levels of the served schedule; the others are uniform.
    served_fraction: float = 0.5
    served_steps: int = 4
    checkpoint_every_s: float = 120.0


class TeacherPairs(NamedTuple):
    """Noise and final latents [B,C,h,w], and the captions between them."""

    noise: Tensor
    images: Tensor
    captions: list[str]


def draw_pairs(teacher: ScenesModel, params: DistilHyperparameters, part: int) -> TeacherPairs:
    """One part of the teacher's pairs. Each part has a random stream of its own."""
    rng = np.random.default_rng((params.seed, part))
    captions = [caption(sample_scene(rng), rng) for _ in range(params.drawn_at_once)]
    seeds = [int(seed) for seed in rng.integers(1 << 31, size=len(captions))]
    last = teacher.constants.default_num_inference_steps
    drawn = [
        teacher.draw(captions[at : at + 32], seeds[at : at + 32], keep_before=[last]).latents[last]
        for at in range(0, len(captions), 32)
    ]
    return TeacherPairs(teacher.noise(seeds), torch.cat(drawn), captions)


def all_pairs(teacher: ScenesModel, params: DistilHyperparameters, out: Path) -> TeacherPairs:
    """All parts; those that a run before has kept in `out` are read from there."""
    parts: list[TeacherPairs] = []
    count = params.pairs // params.drawn_at_once
    for part in range(count):
        kept = out / f"pairs-{part}.pt"
        if not kept.exists():
            side = kept.with_suffix(".part")
            torch.save(tuple(draw_pairs(teacher, params, part)), side)
            side.replace(kept)
        parts.append(TeacherPairs(*torch.load(kept, weights_only=True)))
        log.info("pairs %d/%d", (part + 1) * params.drawn_at_once, params.pairs)
    captions = [text for one in parts for text in one.captions]
    return TeacherPairs(torch.cat([one.noise for one in parts]), torch.cat([one.images for one in parts]), captions)


def noise_levels(params: DistilHyperparameters, count: int, generator: torch.Generator) -> Tensor:
    """[B,1,1,1], from 0 to 1: half of them where the served schedule runs."""
    uniform = torch.rand(count, generator=generator)
    served = (1 + torch.randint(params.served_steps, (count,), generator=generator)) / params.served_steps
    chosen = torch.rand(count, generator=generator) < params.served_fraction
    return torch.where(chosen, served, uniform).view(-1, 1, 1, 1)


@dataclass(slots=True)
class Distillation:
    """The student, its moving average, which is exported, and the optimiser."""

    student: nn.Module
    average: nn.Module
    optimiser: torch.optim.Optimizer
    step: int = 0

    @classmethod
    def start(cls, teacher: ScenesModel, params: DistilHyperparameters) -> "Distillation":
        student = deepcopy(teacher.unet).to(memory_format=torch.channels_last).train()
        student.set_attn_processor(AttnProcessor())  # its backward is faster than SDPA's at 64 positions
        average = deepcopy(student).requires_grad_(False)
        return cls(student, average, torch.optim.AdamW(student.parameters(), lr=params.lr, weight_decay=0.0))

    def save(self, path: Path) -> None:
        side = path.with_suffix(".part")
        modules = {name: getattr(self, name).state_dict() for name in ("student", "average", "optimiser")}
        torch.save({**modules, "step": self.step}, side)
        side.replace(path)

    def restore(self, path: Path) -> None:
        saved = torch.load(path, weights_only=True)
        for name in ("student", "average", "optimiser"):
            getattr(self, name).load_state_dict(saved[name])
        self.step = saved["step"]

    def update(self, loss: Tensor, params: DistilHyperparameters) -> None:
        self.step += 1
        warm = min(1.0, self.step / params.warmup_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, self.step / params.steps)))
        share = warm * (params.final_lr_fraction + (1 - params.final_lr_fraction) * cosine)
        for group in self.optimiser.param_groups:
            group["lr"] = params.lr * share
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.student.parameters(), params.max_gradient_norm)
        self.optimiser.step()
        decay = min(params.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_([*self.average.parameters()], [*self.student.parameters()], 1 - decay)


def reflow_loss(
    teacher: ScenesModel, student: nn.Module, pairs: TeacherPairs, params: DistilHyperparameters, step: int
) -> Tensor:
    """Mean squared error of noise - image on a batch; each step draws its own."""
    generator = torch.Generator().manual_seed(params.seed * 1_000_003 + step)
    order = torch.randint(len(pairs.captions), (params.batch,), generator=generator)
    noise, images = pairs.noise[order], pairs.images[order]
    sigma = noise_levels(params, params.batch, generator)
    noisy = ((1 - sigma) * images + sigma * noise).to(memory_format=torch.channels_last)
    with torch.no_grad():
        conditions = teacher.encode([pairs.captions[index] for index in order.tolist()])
    velocity = student(noisy, sigma.flatten() * 1000, conditions.hidden, class_labels=conditions.cls).sample
    return nn.functional.mse_loss(velocity, noise - images)


def distil(params: DistilHyperparameters, out: Path) -> nn.Module:
    """The student's averaged UNet; continues from `out`/student.pt if it exists."""
    teacher = ScenesModel.load()
    pairs = all_pairs(teacher, params, out)
    checkpoint, run = out / "student.pt", Distillation.start(teacher, params)
    if checkpoint.exists():
        run.restore(checkpoint)
    began, first, saved, losses = time.monotonic(), run.step, time.monotonic(), []
    while run.step < params.steps:
        loss = reflow_loss(teacher, run.student, pairs, params, run.step + 1)
        run.update(loss, params)
        losses.append(float(loss.detach()))
        if run.step % 20 == 0:
            left_min = (params.steps - run.step) * (time.monotonic() - began) / (run.step - first) / 60
            log.info("step %d/%d  loss %.4f  ETA %.1f min", run.step, params.steps, np.mean(losses[-20:]), left_min)
        if time.monotonic() - saved > params.checkpoint_every_s or run.step == params.steps:
            run.save(checkpoint)
            saved = time.monotonic()
    return run.average


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for pairs, student.pt and the exported model/")
    parser.add_argument("--threads", type=int, default=DistilHyperparameters().threads)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    export_student(distil(DistilHyperparameters(threads=arguments.threads), arguments.out), arguments.out / "model")


if __name__ == "__main__":
    main()
