"""`t2ictl`: see `t2ictl --help`."""

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from t2i_profiler.errors import ProfilerError
from t2i_protos.v1 import gateway_pb2
from t2i_runtime.logs import keep_prompts_out
from t2ictl.cluster import PoolName
from t2ictl.commands import cache as cache_commands
from t2ictl.commands import cluster as cluster_commands
from t2ictl.commands import demo as demo_command
from t2ictl.commands import local as local_command
from t2ictl.commands import plan as plan_command
from t2ictl.commands import profile as profile_command
from t2ictl.commands import request as request_commands
from t2ictl.commands import simulate as simulate_command
from t2ictl.commands import token as token_command
from t2ictl.commands.request import CallTarget
from t2ictl.credentials import ProofOptions
from t2ictl.errors import CtlError
from t2ictl.local_pool import DEFAULT_LISTEN, LocalOptions

app = typer.Typer(no_args_is_help=True, help="Run and ask a t2i-serving pool.", pretty_exceptions_enable=False)
local_app = typer.Typer(no_args_is_help=True, help="A pool on this machine.")
app.add_typer(local_app, name="local")
cluster_app = typer.Typer(no_args_is_help=True, help="Pools of a Kubernetes cluster, by your kubeconfig.")
app.add_typer(cluster_app, name="cluster")
cache_app = typer.Typer(
    no_args_is_help=True, help="Latents of earlier prompts; user and password from T2I_STORE_USER, T2I_STORE_PASSWORD."
)
app.add_typer(cache_app, name="cache")
console = Console()

DAY_S = 86400.0
DEFAULT_POOL = Path("examples/pool-scenes.yaml")
Address = Annotated[str, typer.Option(envvar="T2I_ADDRESS", help="gateway address")]
Tenant = Annotated[str, typer.Option(help="tenant name, for gateways in local mode")]
ClusterPool = Annotated[
    str, typer.Option("--pool", "-p", help="NAMESPACE/NAME of a pool in the cluster, not --address")
]
PoolFile = Annotated[Path, typer.Option("--pool", "-p", help="T2IServingPool file")]
Ca = Annotated[
    Path | None, typer.Option(envvar="T2I_CA", help="authorities that signed the gateway's certificate; means TLS")
]
Cert = Annotated[Path | None, typer.Option(envvar="T2I_CERT", help="client certificate, with --key")]
Key = Annotated[Path | None, typer.Option(envvar="T2I_KEY", help="private key of --cert")]
TokenFile = Annotated[Path | None, typer.Option(envvar="T2I_TOKEN_FILE", help="file with a bearer token; means TLS")]
Tls = Annotated[bool, typer.Option("--tls", help="TLS with the system's authorities")]
ServerName = Annotated[
    str, typer.Option(envvar="T2I_SERVER_NAME", help="name in the gateway's certificate, if the address has another")
]
Limit = Annotated[float, typer.Option("--timeout-s", min=0.001, max=DAY_S, help="give up after this many seconds")]
#: What the wire carries: uint64 and uint32.
Seed = Annotated[int, typer.Option(min=0, max=2**64 - 1)]
MAX_STEPS = 2**32 - 1
MAX_PROMPTS = 1_000_000


@local_app.command("up")
def local_up(
    pool: PoolFile = DEFAULT_POOL,
    listen: Annotated[str, typer.Option(help="gateway address")] = DEFAULT_LISTEN,
    folder: Annotated[Path | None, typer.Option(help="logs and latents; default: a temporary folder")] = None,
    profile: Annotated[Path | None, typer.Option(help="profile JSON; default: the builtin model's")] = None,
    embedder: Annotated[Path | None, typer.Option(help="embedder folder; default: the builtin model's")] = None,
    models_dir: Annotated[Path, typer.Option(help="where hf:// and pvc:// models are")] = Path("models"),
    threads: Annotated[int, typer.Option(min=0, max=1024, help="CPU threads a worker; 0 = share the cores")] = 0,
) -> None:
    """Start gateway and workers from a pool file; Ctrl-C drains."""
    options = LocalOptions(pool, listen, folder, profile, embedder, models_dir, threads)
    _run(local_command.run_local(console, options))


@cluster_app.command("pools")
def cluster_pools(
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="only this one; default: all")] = "",
) -> None:
    """List pools, and in words what is wrong with them."""
    _run(cluster_commands.show_pools(console, namespace))


@cluster_app.command("plan")
def cluster_plan(
    pool: str, namespace: Annotated[str, typer.Option("--namespace", "-n", help="of the pool")] = "default"
) -> None:
    """Why this mix: the traffic a pool's plan was made for, workers by level, prompts by level."""
    _run(cluster_commands.show_plan(console, PoolName(namespace, pool)))


Store = Annotated[str, typer.Option(envvar="T2I_STORE", help="redis://HOST:PORT, rediss:// or file:///PATH")]
StorePool = Annotated[str, typer.Option("--pool", "-p", help="the pool's name; in a cluster NAMESPACE/NAME")]
StoreTenant = Annotated[str, typer.Option(help="only what belongs to this tenant")]


@cache_app.command("stats")
def cache_stats(store: Store, pool: StorePool, tenant: StoreTenant = "") -> None:
    """How many latents are stored, of how many prompts, by model."""
    _run(cache_commands.show_stats(console, cache_commands.StorePlace(store, pool), tenant))


@cache_app.command("purge")
def cache_purge(
    store: Store,
    pool: StorePool,
    tenant: StoreTenant = "",
    model_digest: Annotated[str, typer.Option(help="only what this model left; see stats")] = "",
    everything: Annotated[bool, typer.Option("--all", help="all latents of the pool")] = False,
) -> None:
    """Throw away latents, for good; gateways that follow the store forget them within moments."""
    place = cache_commands.StorePlace(store, pool)
    _run(cache_commands.purge(console, place, tenant, model_digest, everything))


@cache_app.command("export")
def cache_export(out: Path, store: Store, pool: StorePool, tenant: StoreTenant = "") -> None:
    """Write latents into a tar file. It lets images be drawn that resemble your users' prompts: keep it as you keep
    those."""
    _run(cache_commands.export_latents(console, cache_commands.StorePlace(store, pool), tenant, out))


@cache_app.command("import")
def cache_import(file: Path, store: Store, pool: StorePool) -> None:
    """Store the latents of an export, for a pool of the same name, model and settings."""
    _run(cache_commands.import_latents(console, cache_commands.StorePlace(store, pool), file))


@app.command()
def generate(
    prompt: str,
    output: Annotated[Path, typer.Option("--output", "-o", help="image file: .png, .jpg or .webp")] = Path("out.png"),
    address: Address = DEFAULT_LISTEN,
    pool: ClusterPool = "",
    tenant: Tenant = "",
    ca: Ca = None,
    cert: Cert = None,
    key: Key = None,
    token_file: TokenFile = None,
    tls: Tls = False,
    server_name: ServerName = "",
    negative_prompt: str = "",
    seed: Annotated[int | None, typer.Option(min=0, max=2**64 - 1)] = None,
    exact: Annotated[bool, typer.Option(help="no approximation")] = False,
    min_quality_percent: Annotated[int | None, typer.Option(min=0, max=100)] = None,
    max_skipped_steps: Annotated[int | None, typer.Option(min=0, max=MAX_STEPS)] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, max=MAX_STEPS, help="fix the schedule length, without approximation")
    ] = None,
    guidance_scale: Annotated[float | None, typer.Option(min=0, max=100)] = None,
    request_id: Annotated[str, typer.Option(help="a repeat of it never draws twice")] = "",
    timeout_s: Limit = 120.0,
) -> None:
    """Draw one image; prints level, reason and timings."""
    request = gateway_pb2.GenerateRequest(
        prompt=prompt,
        negative_prompt=negative_prompt,
        seed=seed,
        exact=exact,
        min_quality_percent=min_quality_percent,
        max_skipped_steps=max_skipped_steps,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        request_id=request_id,
    )
    proof = ProofOptions(tenant, tls, ca, cert, key, token_file, server_name)
    _run(request_commands.generate(console, CallTarget(address, pool, proof), request, output, timeout_s))


@app.command()
def explain(
    prompt: str,
    address: Address = DEFAULT_LISTEN,
    pool: ClusterPool = "",
    tenant: Tenant = "",
    ca: Ca = None,
    cert: Cert = None,
    key: Key = None,
    token_file: TokenFile = None,
    tls: Tls = False,
    server_name: ServerName = "",
    seed: Annotated[int | None, typer.Option(min=0, max=2**64 - 1)] = None,
    exact: bool = False,
    min_quality_percent: Annotated[int | None, typer.Option(min=0, max=100)] = None,
    timeout_s: Limit = 10.0,
) -> None:
    """Say what would happen to a prompt now, and why, without drawing it."""
    request = gateway_pb2.GenerateRequest(
        prompt=prompt, seed=seed, exact=exact, min_quality_percent=min_quality_percent
    )
    proof = ProofOptions(tenant, tls, ca, cert, key, token_file, server_name)
    _run(request_commands.explain(console, CallTarget(address, pool, proof), request, timeout_s))


@app.command()
def profile(
    out: Annotated[Path, typer.Option(help="profile JSON to write; a plot goes beside it")] = Path("profile.json"),
    pool: PoolFile = DEFAULT_POOL,
    workers: Annotated[str, typer.Option(help="addresses of running workers; default: start the pool's own")] = "",
    prompts: Annotated[
        Path | None, typer.Option(help="one prompt a line; default: captions of the scenes model")
    ] = None,
    embedder: Annotated[Path | None, typer.Option(help="embedder folder; default: the builtin model's")] = None,
    cached: Annotated[int, typer.Option(min=8, max=MAX_PROMPTS, help="prompts whose latents are kept")] = 200,
    asked: Annotated[int, typer.Option(min=8, max=MAX_PROMPTS, help="prompts measured against them")] = 240,
    seeds: Annotated[
        int, typer.Option(min=1, max=1000, help="images a prompt and level; 1 = how much seeds differ is not measured")
    ] = 2,
    twins: Annotated[
        int,
        typer.Option(
            min=0,
            max=MAX_PROMPTS,
            help="of the asked prompts, those measured from a swapped, negated or recounted twin",
        ),
    ] = 64,
    seed: Seed = 1,
    predictor: Annotated[bool, typer.Option("--predictor", help="write the learned predictor, not bands only")] = False,
    from_samples: Annotated[
        Path | None, typer.Option(help="fit to the samples file of an earlier run, drawing nothing")
    ] = None,
) -> None:
    """Measure service times and quality loss by level, similarity and prompt on running workers.

    Beside the profile lies OUT.samples.jsonl with every measured prompt in clear: keep it as you keep your prompts.
    """
    if from_samples is not None:
        _run(profile_command.refit_profile(console, from_samples, out, predictor))
        return
    plan = profile_command.ProfilePlan(pool, workers, prompts, embedder, cached, asked, seeds, seed, twins)
    _run(profile_command.run_profile(console, plan, out, predictor))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="folder for contact-sheet.png and summary.json")] = Path("build/demo"),
    pool: PoolFile = DEFAULT_POOL,
    captions: Annotated[int, typer.Option(min=8, max=MAX_PROMPTS, help="captions to send")] = 60,
    seed: Seed = 7,
) -> None:
    """Send captions with repetition and similarity through a local pool; score and show the images."""
    _run(demo_command.run_demo(console, pool, out, captions, seed))


@app.command()
def simulate(
    arrivals: Annotated[Path, typer.Option(help="one time in ms a line")],
    pool: PoolFile = Path("examples/pool-sdxl-8.yaml"),
    prompts: Annotated[
        Path | None, typer.Option(help="one prompt a line, in order, cycled; default: similarities are drawn")
    ] = None,
    policy: Annotated[str, typer.Option(help="NAME[,NAME...] or all")] = "prompt-aware",
    workers: Annotated[int | None, typer.Option(min=1, max=4096, help="instead of the pool's number")] = None,
    speedup: Annotated[float, typer.Option(min=0.001, max=1e6, help="how many times faster requests arrive")] = 1.0,
    profile: Annotated[Path | None, typer.Option(help="profile JSON for all groups; default: each group's")] = None,
    embedder: Annotated[
        Path | None, typer.Option(help="embedder folder; default: the model's or a sentence encoder")
    ] = None,
    fresh_cycles: Annotated[
        bool, typer.Option(help="a prompt that comes again by cycling finds others, not itself")
    ] = False,
    fault: Annotated[
        list[str] | None, typer.Option(help="WORKER@FROM-UNTIL dies, ...xN steps N times slower; seconds")
    ] = None,
    seed: Seed = 0,
    json_out: Annotated[Path | None, typer.Option("--json", help="rows, one a policy")] = None,
    plot_out: Annotated[Path | None, typer.Option("--plot", help="picture of the course over time")] = None,
) -> None:
    """Say what quality, p99 and violations a pool would have under a trace, by running the real decisions over it."""
    options = simulate_command.SimulateOptions(
        pool, arrivals, prompts, policy, workers, speedup, profile, embedder, fresh_cycles, fault or [], seed,
        json_out, plot_out,
    )  # fmt: skip
    _try(lambda: simulate_command.run_simulate(console, options))


@app.command()
def plan(
    pool: PoolFile = Path("examples/pool-sdxl-8.yaml"),
    demand: Annotated[
        float | None, typer.Option(min=0, max=1e6, help="images/s; classes as in the lineage's histogram")
    ] = None,
    rates: Annotated[
        str, typer.Option(help="CLASS=RPS[,...] instead; a class is a lower edge of similarity, or none")
    ] = "",
    workers: Annotated[int | None, typer.Option(min=1, max=4096, help="instead of the pool's number")] = None,
    profile: Annotated[Path | None, typer.Option(help="profile JSON for all groups; default: each group's")] = None,
) -> None:
    """Show the plan for a demand, and what the pool could carry: how many GPUs for which quality."""
    options = plan_command.PlanOptions(pool, demand, rates, workers, profile)
    _try(lambda: plan_command.run_plan(console, options))


@app.command()
def token(
    tenant: str,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="new file for the token; default: print it")] = None,
    tokens: Annotated[Path | None, typer.Option(help="file of digests to add the line to; default: print it")] = None,
) -> None:
    """Make a bearer token for a tenant, and the line for the Secret that spec.security.tokensSecretName names."""
    _try(lambda: token_command.make_token(console, tenant, out, tokens))


def _try(work: Callable[[], None]) -> None:
    """Run a command that needs no event loop."""
    try:
        work()
    except (CtlError, ProfilerError) as error:
        console.print(f"[red]error[/red]: {error}", highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run a command; SIGTERM ends it as Ctrl-C does, so that a pool of its own drains with it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        asyncio.run(work)
    except (CtlError, ProfilerError) as error:
        console.print(f"[red]error[/red]: {error}", highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def main() -> None:
    """Entry point."""
    keep_prompts_out()
    app()


if __name__ == "__main__":
    main()
