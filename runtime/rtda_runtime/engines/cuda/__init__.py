"""The seam to CUDA: memory, streams, graphs and the project's own kernels, over PyCUDA or cuda-python."""
