"""The service: pictures in over HTTP, one forward pass of one ONNX file, three answers out."""
