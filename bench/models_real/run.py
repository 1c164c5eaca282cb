"""Two models in one real pool: is what is promised across models what is served? `make bench-models-real`.

One worker holds the embedded model, one the model distilled from it. Capacity is what both draw in a second at the
same time: exact images of the one, images that demand the other. The load is 0.7 of that, then a burst of twice that.
Every image's exact one is drawn afterwards by the first model, and the exact scorer judges both. Figures are written
once the load is over, and again when all is judged.

    images                      that came, of all parts
    lost                        requests that were accepted and have no image
    wrong_model                 of those that demanded a model: drawn by another one
    quality_percent             of exact, of all images
    promise_error_points_max    of all levels and bands with 30 images or more: promised - measured quality, the largest
    model_error_points_max      the same of each model as a whole
    by_model                    images, promised and measured quality with its reach, and each level and band
"""

import asyncio
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.kit.arguments import BenchParser
from bench.kit.machine import load_average
from bench.kit.output import say, write_json
from bench.models_real.page import BASE_STEPS, write_report
from bench.quality.run import largest_error, quality_percent, violation_percent
from bench.quality.serving import BenchPool, SentCaption, as_audits, send_closed, send_open, serving
from t2i_policy.audits import Audit, AuditSummary, BandOf, by_band, summarise
from t2i_policy.profile_document import parse_profile
from t2i_runtime.level_messages import to_level
from t2i_scenes import model_path
from t2ictl.commands.demo import demo_samples, model_names
from t2ictl.local_pool import LocalPool

QUICK = {"requests": 24, "burst": 16, "demanded": 6}
PARSER = BenchParser(__doc__, "models-real", quick=QUICK, page=True)
PARSER.add_argument("--requests", type=int, default=1000, help="images at 0.7 of capacity")
PARSER.add_argument("--burst", type=int, default=300, help="requests at twice the capacity")
PARSER.add_argument("--demanded", type=int, default=60, help="requests that demand each model")
LOAD, BURST = 0.7, 2.0
WARM = 24  # captions that the full model draws while capacity is measured
LIGHTER = 4  # as many times as many for the distilled one
POOL = BenchPool(
    levels="{skippedSteps: 0}, {forecast: 2, guidedSteps: 4}, {computedSteps: [0, 1, 4, 8]}, "
    "{computedSteps: [0, 1, 4, 8], guidedSteps: 2}, {model: distilled, numInferenceSteps: 3}, "
    "{model: distilled, numInferenceSteps: 2}",
    groups="{name: full, workers: 1}, {name: light, workers: 1, model: {name: distilled, "
    'source: "builtin://scenes/distilled", numInferenceSteps: 4, guidanceScalePercent: 100}}',
)


async def capacity_rps(pool: LocalPool, names: Mapping[str, str]) -> dict[str, float]:
    """Images a second of each model, drawn at the same time: exact ones, and such that demand another model."""

    async def rate(model: str, name: str) -> float:
        samples = demo_samples(WARM * (LIGHTER if model else 1), 3)
        began_s = time.perf_counter()
        sent = await send_closed(
            pool, samples, f"capacity, {name}", exact=not model, model=model, tenant="warm" if model else ""
        )
        return sum(one.generated is not None for one in sent) / (time.perf_counter() - began_s)

    rates = await asyncio.gather(*(rate(model, name) for model, name in names.items()))
    return dict(zip(names.values(), rates, strict=True))


def answered_by(sent: SentCaption) -> str:
    """The model, by its name in levels."""
    return "" if sent.generated is None else to_level(sent.generated.done.served).model


def told_of(sent: Sequence[SentCaption]) -> dict[str, Any]:
    """What became of the requests of a part."""
    return {
        "sent": len(sent),
        "images": sum(one.generated is not None for one in sent),
        "lost": sum(one.lost for one in sent),
        "refused": sum(one.generated is None and not one.accepted for one in sent),
        "late_refused_or_failed_percent": violation_percent(sent),
        "by_distilled_percent": 100 * sum(answered_by(one) != "" for one in sent) / max(1, len(sent)),
    }


@dataclass(frozen=True, slots=True)
class JudgedModels:
    """Promised and measured, of approximated images: by level and band, and by model."""

    bands: Mapping[BandOf, AuditSummary]
    models: Mapping[str, AuditSummary]

    @classmethod
    def of(cls, audits: Sequence[Audit], names: Mapping[str, str]) -> "JudgedModels":
        bands = {band: summarise(inside) for band, inside in by_band(audits).items()}
        models = {
            name: summarise([one for one in audits if one.band.level.model == model]) for model, name in names.items()
        }
        return cls(bands, models)

    @property
    def figures(self) -> dict[str, Any]:
        return {
            "promise_error_points_max": largest_error(self.bands),
            "promise_short_points_max": largest_error(self.bands, short=True),
            "model_error_points_max": largest_error(self.models),
            "model_short_points_max": largest_error(self.models, short=True),
            "by_model": {name: told_summary(summary) for name, summary in self.models.items()},
            "bands": [
                {"level": band.level.label(BASE_STEPS), "similarity_min": band.similarity_min, **told_summary(summary)}
                for band, summary in self.bands.items()
            ],
        }


def told_summary(summary: AuditSummary) -> dict[str, Any]:
    """In percent of exact; `reach` is what chance alone would explain."""
    quality = summary.quality
    return {
        "images": summary.num_audits,
        "promised_percent": 100 * quality.promised,
        "measured_percent": 100 * quality.measured,
        "reach_points": 100 * quality.reach,
    }


async def send_parts(pool: LocalPool, options: Any, capacity: float) -> dict[str, list[SentCaption]]:
    """What demands each model; the load; the burst."""
    demanded: dict[str, list[SentCaption]] = {}
    for name in model_names(pool.pool.spec).values():
        asked = demo_samples(options.demanded, 8)
        demanded[f"{name} demanded"] = await send_closed(pool, asked, f"{name} demanded", model=name, tenant=name)
    samples = demo_samples(options.requests + options.burst, 7)
    calm, burst = samples[: options.requests], samples[options.requests :]
    return {
        **demanded,
        "0.7 of capacity": await send_open(pool, calm, LOAD * capacity, "at 0.7 of capacity"),
        "burst": await send_open(pool, burst, BURST * capacity, "burst, at twice the capacity"),
    }


def wrong_model(parts: Mapping[str, Sequence[SentCaption]], names: Mapping[str, str]) -> int:
    """Images of another model than was demanded."""
    return sum(
        one.generated is not None and answered_by(one) != model
        for model, name in names.items()
        for one in parts[f"{name} demanded"]
    )


async def measure(options: Any, folder: Path) -> None:
    began_s = time.monotonic()
    profile = parse_profile((model_path() / "profile.json").read_text())
    async with serving(POOL, folder) as pool:
        names = model_names(pool.pool.spec)
        rates = await capacity_rps(pool, names)
        say(f"capacity: {rates} images a second")
        parts = await send_parts(pool, options, sum(rates.values()))
        served = [one for part in parts.values() for one in part]
        figures: dict[str, Any] = {
            "lost": sum(one.lost for one in served),
            "images": sum(one.generated is not None for one in served),
            "wrong_model": wrong_model(parts, names),
            "capacity_rps": rates,
            "parts": {name: told_of(part) for name, part in parts.items()},
            "load_average": load_average(),
        }
        write_json(options.out, figures)
        exact = await send_closed(pool, [one.sample for one in served], "exact, for comparison", exact=True)
    found = JudgedModels.of(as_audits(served, exact, profile), names)
    figures |= {"quality_percent": quality_percent(served, exact), **found.figures}
    figures["minutes"] = round((time.monotonic() - began_s) / 60, 1)
    write_json(options.out, figures)
    write_report(figures, found.bands, options.results)


def main() -> None:
    options = PARSER.parse()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(options, Path(folder)))


if __name__ == "__main__":
    main()
