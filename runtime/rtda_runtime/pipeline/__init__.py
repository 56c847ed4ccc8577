"""The pipeline: a source read by one thread, the network run by another, results to sinks and to whoever asks."""

from rtda_runtime.pipeline.options import POLICIES, PipelineOptions
from rtda_runtime.pipeline.pipeline import Pipeline

__all__ = ["POLICIES", "Pipeline", "PipelineOptions"]
