"""The Open Inference Protocol over gRPC: a port of its own in the same process."""
