"""Generated upb-backed modules of the messages on the wire, from the sources in protos/ (`make protos`)."""
