"""Observers: one Callback a file; a run with one and a run without it end in the same weights."""

import surefoot  # noqa: F401  (before lightning, which imports torchvision)
from callbacks.constant_solution_analysis import ConstantSolutionAnalysis
from callbacks.evaluation import EvaluationObserver
from callbacks.example_dynamics import ExampleDynamics
from callbacks.example_weight_monitor import ExampleWeightMonitor
from callbacks.generalization_predictors import GeneralizationPredictors
from callbacks.group_metrics import GroupMetrics
from callbacks.memorization_tracker import MemorizationTracker
from callbacks.model_exporter import ModelExporter
from callbacks.official_evaluation import OfficialEvaluation
from callbacks.ood_detection import OODDetection
from callbacks.sample_table import SampleTable
from callbacks.selective_risk import SelectiveRisk

__all__ = (
    "ConstantSolutionAnalysis",
    "EvaluationObserver",
    "ExampleDynamics",
    "ExampleWeightMonitor",
    "GeneralizationPredictors",
    "GroupMetrics",
    "MemorizationTracker",
    "ModelExporter",
    "OODDetection",
    "OfficialEvaluation",
    "SampleTable",
    "SelectiveRisk",
)
