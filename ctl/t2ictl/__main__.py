"""`t2ictl`: see `t2ictl --help`."""

import typer

from t2i_runtime.logs import keep_prompts_out
from t2ictl.commands import cache, cluster, demo, inspect, local, plan, profile, request, simulate, token

app = typer.Typer(no_args_is_help=True, help="Run and ask a t2i-serving pool.", pretty_exceptions_enable=False)
app.add_typer(local.app, name="local")
app.add_typer(cluster.app, name="cluster")
app.add_typer(cache.app, name="cache")
for command in (
    *(request.generate, request.explain, inspect.inspect),
    *(profile.profile, demo.demo, simulate.simulate, plan.plan, token.token),
):
    app.command()(command)


def main() -> None:
    keep_prompts_out()
    app()


if __name__ == "__main__":
    main()
