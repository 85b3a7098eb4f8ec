"""The door of a site, where a SuperNode is: one short process a message."""

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedpl.executors.envelope import at_the_door

app = ClientApp()


@app.query()
def query(message: Message, context: Context) -> Message:
    return at_the_door(message, str(context.node_config["site"]))
