"""The Open Inference Protocol, version 2, over gRPC: a port of its own in the same process."""
