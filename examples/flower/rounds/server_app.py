"""The rounds, where Flower's SuperLink is."""

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    from fedpl.flower import serve

    serve(grid, context.run_config)
