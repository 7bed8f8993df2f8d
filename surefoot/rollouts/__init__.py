"""Engines that sample completions, behind one protocol."""

from surefoot.rollouts.engine import (
    Completion,
    EngineStatistics,
    RolloutEngine,
    Sampling,
    derive_seed,
)
from surefoot.rollouts.grading import grade_trajectories, with_stops
from surefoot.rollouts.hf import HFEngine
from surefoot.rollouts.ray import RayEngine
from surefoot.rollouts.samplers import GroupSampler, TrajectorySampler
from surefoot.rollouts.vllm import VLLMEngine
from surefoot.rollouts.vllm_server import VLLMServerEngine

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
