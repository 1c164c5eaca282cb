"""The command line: all commands of `t2ictl`."""

import typer

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
