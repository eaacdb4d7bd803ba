"""How bytes get in and out: transports, listeners, lifecycle, workers, reload, and what an operator sees of them."""
