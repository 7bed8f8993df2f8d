"""Values: how likely a completion ends right, from its prompt and from the end of each of its spans."""

from surefoot.reasoning.metrics import best_of_k, best_of_k_estimate
from surefoot.reasoning.values.base import ValueEstimator, check_labels, check_values
from surefoot.reasoning.values.exact_chains import ExactChainValues
from surefoot.reasoning.values.judged import (
    Judged,
    judged_sequence,
    predicted_values,
    prefix_lengths,
    value_logits,
)
from surefoot.reasoning.values.judged_texts import JudgedText, judged_solution, judged_until_an_error, tokenised
from surefoot.reasoning.values.label_source import (
    LabelledTraining,
    LabelSource,
    have_other_models,
    prompt_template,
    single_prover,
)
from surefoot.reasoning.values.learned import LearnedValues
from surefoot.reasoning.values.monte_carlo import MonteCarloValues, Prefix, prefixes_of
from surefoot.reasoning.values.step_classifier import StepClassifierValues
from surefoot.reasoning.values.step_scorer import StepScorer
from surefoot.reasoning.values.step_tags import StepTagValues
from surefoot.reasoning.values.step_texts import StepLayout, StepTexts, steps_of
from surefoot.reasoning.values.vllm_step_classifier import VLLMStepClassifierValues

__all__ = (
    "ExactChainValues",
    "Judged",
    "JudgedText",
    "LabelSource",
    "LabelledTraining",
    "LearnedValues",
    "MonteCarloValues",
    "Prefix",
    "StepClassifierValues",
    "StepLayout",
    "StepScorer",
    "StepTagValues",
    "StepTexts",
    "VLLMStepClassifierValues",
    "ValueEstimator",
    "best_of_k",
    "best_of_k_estimate",
    "check_labels",
    "check_values",
    "have_other_models",
    "judged_sequence",
    "judged_solution",
    "judged_until_an_error",
    "predicted_values",
    "prefix_lengths",
    "prefixes_of",
    "prompt_template",
    "single_prover",
    "steps_of",
    "tokenised",
    "value_logits",
)
