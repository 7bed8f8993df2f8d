"""Engines that sample completions, behind one protocol."""

from surefoot.reasoning.rollouts.engine import (
    Completion,
    EngineStatistics,
    RolloutEngine,
    Sampling,
    derive_seed,
)
from surefoot.reasoning.rollouts.grading import grade_trajectories, with_stops
from surefoot.reasoning.rollouts.hf import HFEngine
from surefoot.reasoning.rollouts.ray import RayEngine
from surefoot.reasoning.rollouts.samplers import GroupSampler, TrajectorySampler
from surefoot.reasoning.rollouts.vllm import VLLMEngine
from surefoot.reasoning.rollouts.vllm_server import VLLMServerEngine

__all__ = (
    "Completion",
    "EngineStatistics",
    "GroupSampler",
    "HFEngine",
    "RayEngine",
    "RolloutEngine",
    "Sampling",
    "TrajectorySampler",
    "VLLMEngine",
    "VLLMServerEngine",
    "derive_seed",
    "grade_trajectories",
    "with_stops",
)
