"""One ONNX file: what it says of itself, one pass, and what the pass says about the original picture."""
