"""Which policy has sampled stored completions, and which one the attempts behind their values."""

import json
from collections.abc import Mapping
from typing import Any

from surefoot.errors import ConfigError
from surefoot.reasoning.policy import Policy
from surefoot.reasoning.trajectories import Trajectory
from surefoot.reasoning.values import have_other_models

__all__ = ("check_prompt", "describe_policy", "differing_settings")

#: Settings that describe a policy.
_SETTINGS = ("model", "prompt", "engine", "sampling", "tokenizer")
#: Settings of the sampling that leave the policy as it is.
_BUDGET = ("n", "max_tokens")


def describe_policy(identity: Mapping[str, object]) -> str:
    """Return the settings of a policy as JSON, and hashes of what the model's paths hold; empty where there are none.

    Args:
        identity: Settings of a verb that samples, as in `generate_completions`.
    """
    found = {name: identity[name] for name in _SETTINGS if name in identity}
    contents = identity.get("contents")
    if found and isinstance(contents, Mapping):
        found["contents"] = {key: content for key, content in contents.items() if str(key).startswith("model")}
    return json.dumps(found, sort_keys=True) if found else ""


def differing_settings(first: str, second: str) -> list[str]:
    """Return in which of model and sampling two policies differ; in nothing where one of them is not recorded.

    Models are told apart by what their paths hold, and by their settings where that is not known.

    Args:
        first: What `describe_policy` has returned.
        second: The same of the other policy.
    """
    if not first or not second:
        return []
    one, other = json.loads(first), json.loads(second)
    return ["model"] * have_other_models(one, other) + ["sampling"] * (_sampling(one) != _sampling(other))


def _sampling(settings: Mapping[str, Any]) -> dict[str, object]:
    return {name: value for name, value in (settings.get("sampling") or {}).items() if name not in _BUDGET}


def check_prompt(completion: Trajectory, policy: Policy) -> None:
    """Refuse a policy whose prompt is not a completion's: it goes on from that, and stops as its own says.

    Raises:
        ConfigError: If it is another one.
    """
    read = policy.model.decode
    if not read(completion.completion).startswith(completion.text):
        return  # another tokenizer, which is refused elsewhere
    theirs, own = read(completion.prompt), read(policy.prompt.prompt_ids(completion.problem, policy.model))
    if theirs != own:
        raise ConfigError(
            f"the completions were sampled after another prompt, which ends {theirs[-40:]!r}, than the one that is"
            f" given, {own[-40:]!r}: give the prompt of surefoot generate."
        )
