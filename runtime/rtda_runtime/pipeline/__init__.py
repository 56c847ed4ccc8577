"""The pipeline: one thread reads a source, another runs the network, results go to sinks, loops and callbacks."""

from rtda_runtime.pipeline.options import POLICIES, PipelineOptions
from rtda_runtime.pipeline.pipeline import Pipeline

__all__ = ["POLICIES", "Pipeline", "PipelineOptions"]
