r"""A didactic world: chains of additions, subtractions and multiplications, worked out line by line.

A problem ``7+5-3*2=`` is worked from left to right, modulo a number or with carries. Its solution has a line for every
operation and ends with ``#### answer``. Several styles write the same step; a long step does two operations in a line,
``7+5-3=9``; a spurious step is a true line that does not advance the chain; a retry is a wrong line, a line ``wait``,
and the step done again. Every line can be judged exactly, and for a procedural policy the probability of a correct
answer from any prefix is computed exactly.
"""

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

from surefoot.errors import ConfigError
from surefoot.reasoning.problems import Problem

__all__ = (
    "RETRY",
    "STYLES",
    "Chain",
    "Chains",
    "ProceduralPolicy",
    "State",
    "StepKind",
    "arithmetic_problem",
    "draw_question",
    "judge_steps",
    "read_chain",
    "solved_problem",
    "stated_answer",
    "vary_chain",
)

T = TypeVar("T")

RETRY = "wait"
#: How a step is written: the value that it begins with, the operations, the result.
STYLES = ("{a}{operations}={c}", "{c}={a}{operations}", "so {a}{operations} is {c}")
_GROUPS = {"a": r"(?P<a>-?\d+)", "operations": r"(?P<operations>(?:[-+*]-?\d+)+)", "c": r"(?P<c>-?\d+)"}
_STEP = tuple(re.compile(style.format(**_GROUPS)) for style in STYLES)
_OPERATION = re.compile(r"([-+*])(-?\d+)")
_FINAL = re.compile(r"####\s*(-?\d+)\s*")
_QUESTION = re.compile(r"(-?\d+)((?:[-+*]\d+)+)(?:%(\d+))?=")

StepKind = Literal["correct", "wrong", "spurious", "retry", "answer", "wrong answer", "unreadable"]


Operation = tuple[str, int]  # operator, operand


def _written(operations: Sequence[Operation]) -> str:
    return "".join(f"{op}{b}" for op, b in operations)


@dataclass(frozen=True)
class Chain:
    """A problem's numbers."""

    start: int
    operations: tuple[Operation, ...]
    modulus: int | None  # none: with carries

    @property
    def question(self) -> str:
        """The problem as text."""
        modulus = "" if self.modulus is None else f"%{self.modulus}"
        return f"{self.start}{_written(self.operations)}{modulus}="

    @property
    def values(self) -> list[int]:
        """The value before each operation, and at the end the answer."""
        values = [self.start]
        for operation in self.operations:
            values.append(self.advance(values[-1], [operation]))
        return values

    def advance(self, value: int, operations: Sequence[Operation]) -> int:
        """Return the right result of operations from a value."""
        for op, b in operations:
            value = value + b if op == "+" else value - b if op == "-" else value * b
            value = value if self.modulus is None else value % self.modulus
        return value

    def wrong_results(self, right: int) -> list[int]:
        """Return the results that an erring policy chooses from, uniformly."""
        if self.modulus is not None:
            return [v for v in range(self.modulus) if v != right]
        return [right + d for d in (-10, -2, -1, 1, 2, 10)]


def read_chain(question: str) -> Chain:
    """Return the chain of a question.

    Raises:
        ValueError: If it is not one.
    """
    match = _QUESTION.fullmatch(question.strip())
    if match is None:
        raise ValueError(f"not an arithmetic chain: {question!r}.")
    return Chain(int(match.group(1)), _read_operations(match.group(2)), int(match.group(3)) if match.group(3) else None)


def _read_operations(written: str) -> tuple[Operation, ...]:
    return tuple((op, int(b)) for op, b in _OPERATION.findall(written))


class State(NamedTuple):
    """Where a solution stands after some of its lines."""

    value: int  # current value of the chain, as the solution has it
    step: int  # operations done
    before: tuple[int, int]  # both, before the last step
    slipped: bool  # whether the last line was a step with a wrong result, which can still be retried
    answer: int | None  # final answer, once given

    @classmethod
    def at(cls, value: int, step: int) -> "State":
        """Return where a solution stands that has nothing to retry."""
        return cls(value, step, (value, step), False, None)


def _follow(chain: Chain, state: State, line: str) -> tuple[State, StepKind]:
    """Return the state after one more line, and what the line was."""
    if state.answer is not None:
        return state, "unreadable"  # nothing counts after the answer
    line = line.strip()
    if (final := _FINAL.fullmatch(line)) is not None:
        answer = int(final.group(1))
        right = answer == chain.values[-1]
        return state._replace(answer=answer, slipped=False), "answer" if right else "wrong answer"
    if line == RETRY:
        return State.at(*state.before), "retry"
    match = next((m for pattern in _STEP if (m := pattern.fullmatch(line)) is not None), None)
    if match is None:
        return state, "unreadable"
    a, operations, c = int(match["a"]), _read_operations(match["operations"]), int(match["c"])
    true = chain.advance(a, operations) == c
    done = state.step + len(operations)
    if operations == chain.operations[state.step : done] and (a == state.value or not true):
        right = true and a == state.value
        return State(c, done, state[:2], not right, None), "correct" if right else "wrong"
    return state._replace(slipped=False), "spurious" if true else "wrong"


def _state_after(chain: Chain, lines: Sequence[str]) -> State:
    """Return where a solution stands after some lines, by whomever.

    Args:
        chain: The problem.
        lines: The solution's lines, without line ends.
    """
    state = State.at(chain.start, 0)
    for line in lines:
        state, _ = _follow(chain, state, line)
    return state


def stated_answer(text: str) -> int | None:
    """Return the answer that a solution states, in its first final line; none where there is no such line."""
    finals = (_FINAL.fullmatch(line.strip()) for line in text.splitlines())
    return next((int(final.group(1)) for final in finals if final is not None), None)


def judge_steps(question: str, lines: Sequence[str]) -> list[StepKind]:
    """Judge every line of a solution.

    ``correct``: the chain's next operations on the solution's current value, with the right result. ``wrong``: a false
    statement, or the next operations on another value. ``spurious``: true, but no step of the chain. ``retry``: takes
    the last step back. ``answer`` and ``wrong answer``: the final line. ``unreadable``: anything else, and whatever
    follows the answer.

    Args:
        question: The problem's question.
        lines: The solution's lines, without line ends.

    Returns:
        One judgement per line. After an uncorrected wrong step, later steps are judged by what they do with its result.
    """
    chain = read_chain(question)
    state = State.at(chain.start, 0)
    kinds: list[StepKind] = []
    for line in lines:
        state, kind = _follow(chain, state, line)
        kinds.append(kind)
    return kinds


@dataclass(frozen=True)
class ProceduralPolicy:
    """Works a chain out step by step, erring, noticing and digressing at given rates.

    Before each step it writes a spurious line with probability ``spurious_rate``. A step does one operation, or two
    with probability ``long_step_rate`` where two are left. Its result is wrong with probability ``error_rate``,
    uniformly over the wrong results. After a wrong result it notices with probability ``retry_rate``, writes ``wait``
    and does the step again; errors that it does not notice at once stay. At the end it states its value.

    Args:
        error_rate: Probability of a wrong result in a step.
        retry_rate: Probability that a wrong result is noticed, taken back and done again.
        spurious_rate: Probability of a true but useless line before each step.
        styles: Ways of writing a step, 0 to 2; one is chosen uniformly per solution.
        long_step_rate: Probability of a step of two operations where two are left.
    """

    error_rate: float = 0.0
    retry_rate: float = 0.0
    spurious_rate: float = 0.0
    styles: tuple[int, ...] = (0,)
    long_step_rate: float = 0.0

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ConfigError: If one is out of range, or a solution would never end.
        """
        object.__setattr__(self, "styles", tuple(self.styles))  # a list would have no hash
        rates = (self.error_rate, self.retry_rate, self.spurious_rate, self.long_step_rate)
        if not all(0 <= r <= 1 for r in rates):
            raise ConfigError(f"error_rate, retry_rate, spurious_rate and long_step_rate lie in [0, 1], got {rates}.")
        if self.error_rate * self.retry_rate == 1:
            raise ConfigError("with error_rate and retry_rate 1 a solution never ends.")
        if not self.styles or not set(self.styles) <= set(range(len(STYLES))):
            raise ConfigError(f"styles are numbers in 0..{len(STYLES) - 1}, at least one; got {list(self.styles)}.")

    def solve(self, question: str, random_state: random.Random, prefix: Sequence[str] = ()) -> list[str]:
        """Return the lines that the policy writes after a prefix."""
        chain = read_chain(question)
        state = _state_after(chain, prefix)
        style = STYLES[random_state.choice(self.styles)]
        lines: list[str] = []
        while state.answer is None:
            if state.slipped and random_state.random() < self.retry_rate:
                line = RETRY
            elif state.step == len(chain.operations):
                line = f"#### {state.value}"
            else:
                if random_state.random() < self.spurious_rate:
                    lines.append(self._spurious(chain, state, style, random_state))
                    state, _ = _follow(chain, state, lines[-1])
                operations = chain.operations[state.step :][: self._draw_length(chain, state, random_state)]
                result = chain.advance(state.value, operations)
                if random_state.random() < self.error_rate:
                    result = random_state.choice(chain.wrong_results(result))
                line = style.format(a=state.value, operations=_written(operations), c=result)
            lines.append(line)
            state, _ = _follow(chain, state, line)
        return lines

    def _draw_length(self, chain: Chain, state: State, random_state: random.Random) -> int:
        """Return how many operations the next step does; nothing is drawn where all steps are short."""
        longer = self.long_step_rate > 0 and len(chain.operations) - state.step > 1
        return 2 if longer and random_state.random() < self.long_step_rate else 1

    def _spurious(self, chain: Chain, state: State, style: str, random_state: random.Random) -> str:
        """Return a true line that is not the chain's next step."""
        pending = chain.operations[state.step]
        top = chain.modulus or 10
        while True:
            a, b, op = (
                random_state.randrange(top),
                random_state.randrange(top),
                random_state.choice("+-*"),
            )
            if (op, b) != pending:
                return style.format(a=a, operations=_written([(op, b)]), c=chain.advance(a, [(op, b)]))

    def success_probability(self, question: str, prefix: Sequence[str] = ()) -> float:
        """Return the exact probability of a correct final answer after a prefix.

        The distribution of the chain's value is carried through the remaining steps. With error rate e and retry rate r
        a step ends right with probability ``(1 - e) / (1 - e r)``, its retries included.

        Args:
            question: The problem's question.
            prefix: Lines already written, by whomever.
        """
        chain = read_chain(question)
        state = _state_after(chain, prefix)
        if state.answer is not None:
            return float(state.answer == chain.values[-1])
        stays = self._finish(chain, state.value, state.step)
        if not state.slipped:
            return stays
        return (1 - self.retry_rate) * stays + self.retry_rate * self._finish(chain, *state.before)

    def _finish(self, chain: Chain, value: int, step: int) -> float:
        """Return the probability of a right answer from a value, with nothing to retry."""
        reached = [
            dict[int, float]() for _ in range(len(chain.operations) + 1)
        ]  # by operations done: value -> how likely
        reached[step][value] = 1.0
        for i in range(step, len(chain.operations)):
            left = len(chain.operations) - i
            long = self.long_step_rate if left > 1 else 0.0
            for n, share in ((1, 1 - long), (2, long)):
                if share > 0:
                    for after, probability in self._step(chain, reached[i], chain.operations[i : i + n]):
                        reached[i + n][after] = reached[i + n].get(after, 0.0) + share * probability
        return reached[-1].get(chain.values[-1], 0.0)

    def _step(
        self, chain: Chain, before: Mapping[int, float], operations: Sequence[Operation]
    ) -> Iterator[tuple[int, float]]:
        """Yield values after a step and their probabilities, from those before it; values may come again."""
        e, r = self.error_rate, self.retry_rate
        right = 1.0 if e == 0 else 0.0 if e * r == 1 else (1 - e) / (1 - e * r)
        for value, probability in before.items():
            result = chain.advance(value, operations)
            yield result, probability * right
            wrong = chain.wrong_results(result) if right < 1 else []
            for other in wrong:
                yield other, probability * (1 - right) / len(wrong)


@dataclass(frozen=True)
class Chains:
    """What chains are drawn from.

    Args:
        min_steps: Fewest operations.
        max_steps: Most operations.
        modulus: Results are taken modulo this; null for whole numbers with carries.
        operators: Operators to choose from.
        max_operand: Largest operand; the smallest is 0, or 1 without a modulus.
    """

    min_steps: int = 3
    max_steps: int = 5
    modulus: int | None = 10
    operators: str = "+-*"
    max_operand: int = 9

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ConfigError: If one is out of range.
        """
        if not 1 <= self.min_steps <= self.max_steps:
            raise ConfigError(f"expected 1 <= min_steps <= max_steps, got {self.min_steps} and {self.max_steps}.")
        if not self.operators or set(self.operators) - set("+-*"):
            raise ConfigError(f"operators lie in '+-*', at least one; got {self.operators!r}.")

    def draw(self, random_state: random.Random) -> Chain:
        """Return a chain."""
        low = 0 if self.modulus is not None else 1
        n = random_state.randint(self.min_steps, self.max_steps)
        start = random_state.randint(low, self.max_operand)
        operations = tuple(
            (random_state.choice(self.operators), random_state.randint(low, self.max_operand)) for _ in range(n)
        )
        return Chain(start, operations, self.modulus)


def draw_question(seed: int, number: int, chains: Chains) -> tuple[str, random.Random]:
    """Return a question of an unlimited, seeded sequence, and the generator that its solution is drawn from next.

    Args:
        seed: Seed of the sequence.
        number: Number of the question.
        chains: What it is drawn from.
    """
    draw = random.Random(f"{seed}/{number}")  # no derive_seed: committed results are of these problems
    return chains.draw(draw).question, draw


def arithmetic_problem(
    seed: int, index: int, chains: Chains | None = None, policy: ProceduralPolicy | None = None
) -> Problem:
    """Return problem number ``index`` of an unlimited, seeded sequence.

    Args:
        seed: Seed of the sequence.
        index: Number of the problem.
        chains: What it is drawn from; by default 3 to 5 operations modulo 10.
        policy: Writes the reference solution; by default without errors, retries and spurious lines.
    """
    question, draw = draw_question(seed, index, chains or Chains())
    return solved_problem(f"arithmetic-{seed}-{index}", question, policy or ProceduralPolicy(), draw)


def solved_problem(identity: str, question: str, policy: ProceduralPolicy, random_state: random.Random) -> Problem:
    """Return a question with its answer and a reference solution that a policy writes.

    Args:
        identity: The problem's id.
        question: A chain.
        policy: Writes the solution.
        random_state: What the policy draws from.

    Raises:
        ValueError: If the question is not a chain.
    """
    chain = read_chain(question)
    lines = policy.solve(question, random_state)
    details = {"n_steps": len(chain.operations)}
    return Problem(identity, question, str(chain.values[-1]), "\n".join(lines), details)


def vary_chain(question: str, random_state: random.Random, operators: str = "+-*", max_operand: int = 9) -> str:
    """Return a question that differs from the given one in a single number or operator.

    Args:
        question: A chain.
        random_state: Draws the position and what is put there.
        operators: Operators to choose from.
        max_operand: Largest operand.

    Raises:
        ValueError: If the question is not a chain.
    """
    chain = read_chain(question)
    low = 0 if chain.modulus is not None else 1
    operations = list(chain.operations)
    start, place = chain.start, random_state.randrange(-1, len(operations))
    if place < 0:
        start = _another(range(low, max_operand + 1), start, random_state)
    else:
        op, operand = operations[place]
        if len(set(operators)) > 1 and random_state.random() < 0.5:
            op = _another(operators, op, random_state)
        else:
            operand = _another(range(low, max_operand + 1), operand, random_state)
        operations[place] = (op, operand)
    return Chain(start, tuple(operations), chain.modulus).question


def _another(choices: Sequence[T], present: T, random_state: random.Random) -> T:
    """Return a choice other than the present one, where there is one."""
    return random_state.choice([c for c in choices if c != present] or [present])
