"""The service: pictures in over HTTP, one forward pass of one ONNX file, three answers out."""

import os

# ONNX Runtime reports models and usage to its maker unless it finds this when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
