"""ONNX graphs: made from a checkpoint, folded, rewritten, checked."""
