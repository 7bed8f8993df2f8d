"""Engines that sample completions, behind one protocol."""

from surefoot.reasoning.rollouts.decoding import decode_trajectories, with_stops
from surefoot.reasoning.rollouts.engine import (
    Completion,
    EngineStatistics,
    RolloutEngine,
    Sampling,
    SeedOf,
)
from surefoot.reasoning.rollouts.hf import HFEngine
from surefoot.reasoning.rollouts.ray import RayEngine
from surefoot.reasoning.rollouts.vllm import VLLMEngine
from surefoot.reasoning.rollouts.vllm_server import VLLMServerEngine

__all__ = (
    "Completion",
    "EngineStatistics",
    "HFEngine",
    "RayEngine",
    "RolloutEngine",
    "Sampling",
    "SeedOf",
    "VLLMEngine",
    "VLLMServerEngine",
    "decode_trajectories",
    "with_stops",
)
