# mypy: disable-error-code="untyped-decorator"
"""Write the golden Inspect logs with inspect_ai itself: a scripted model (`mockllm`), no network.

usage: python make.py     (writes agents.eval and answers.json beside this file)

agents.eval: one sample calls two tools in parallel (one of them fails) and a sub-agent, which has a model thread of its
own; one is ended by its message limit; one by an error, before its call is answered.
answers.json: one question with an image, two epochs; the first is half right, the second cannot be scored (NaN).
"""

import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

from inspect_ai import Task, eval
from inspect_ai.agent import as_tool, react
from inspect_ai.dataset import Sample
from inspect_ai.model import (
    ChatMessageAssistant,
    ChatMessageUser,
    ContentImage,
    ContentReasoning,
    ContentText,
    GenerateConfig,
    Model,
    ModelOutput,
    ModelUsage,
    get_model,
)
from inspect_ai.scorer import Score, Scorer, Target, includes, mean, scorer
from inspect_ai.solver import TaskState, generate
from inspect_ai.tool import Tool, ToolCall, ToolError, tool

HERE = Path(__file__).parent
DOT = (  # a PNG of one pixel
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@tool
def add() -> Tool:
    async def execute(a: int, b: int) -> int:
        """Add two numbers.

        Args:
            a: The first.
            b: The second.
        """
        return a + b

    return execute


@tool
def fail() -> Tool:
    async def execute(why: str) -> str:
        """Always fail.

        Args:
            why: The reason.
        """
        raise ToolError(f"failed: {why}")

    return execute


@tool
def crash() -> Tool:
    async def execute(why: str) -> str:
        """End the run.

        Args:
            why: The reason.
        """
        raise RuntimeError(f"crashed: {why}")

    return execute


@scorer(metrics=[mean()])
def half() -> Scorer:
    async def score(state: TaskState, target: Target) -> Score:
        return Score(value="P" if state.epoch == 1 else math.nan, answer=state.output.completion)

    return score


@scorer(metrics={"*": [mean()]})
def grades() -> Scorer:
    async def score(state: TaskState, target: Target) -> Score:
        return Score(value={"length": len(state.messages), "polite": True}, explanation="counted")

    return score


def said(text: str, calls: list[ToolCall] | None = None, thought: str | None = None) -> ModelOutput:
    content: Any = [ContentReasoning(reasoning=thought, signature="sig"), ContentText(text=text)] if thought else text
    message = ChatMessageAssistant(content=content, tool_calls=calls, model="mockllm/model")
    output: ModelOutput = ModelOutput.from_message(message)
    output.usage = ModelUsage(
        input_tokens=10, output_tokens=4, input_tokens_cache_read=6, total_tokens=20, reasoning_tokens=1
    )
    return output


def submitted(answer: str) -> ModelOutput:
    return said("", [ToolCall("submit-1", "submit", {"answer": answer})])


def scripted() -> Model:
    def reply(messages: list[Any], *_: Any) -> ModelOutput:
        system, turns = messages[0].text, [message.role for message in messages].count("assistant")
        if "sub-agent" in system:
            return submitted("42") if turns else said("", [ToolCall("s1", "add", {"a": 20, "b": 22})])
        if "Crash" in messages[1].text:
            return said("", [ToolCall("x1", "add", {"a": 1, "b": 1}), ToolCall("x2", "crash", {"why": "told to"})])
        if "forever" in messages[1].text:
            return said("again", [ToolCall(f"f{turns}", "add", {"a": turns, "b": 1})])
        calls = [ToolCall("c1", "add", {"a": 1, "b": 2}), ToolCall("c2", "fail", {"why": "no"})]
        script = [
            said("Two at once.", calls, thought="Both are needed."),
            said("Ask the helper.", [ToolCall("c3", "helper", {"input": "20+22"})]),
            submitted("42"),
        ]
        return script[turns]

    return get_model("mockllm/model", custom_outputs=reply, config=GenerateConfig(temperature=0.5, seed=7))


def agents() -> Task:
    helper = react(name="helper", description="Adds big numbers.", prompt="You are a sub-agent.", tools=[add()])
    agent = react(prompt="You are the agent.", tools=[add(), fail(), crash(), as_tool(helper)])
    samples = [
        Sample("What is 20+22?", target="42", id="sum", metadata={"level": 1}),
        Sample("Go on forever.", target="never", id="endless"),
        Sample("Crash.", target="never", id="crash"),
    ]
    return Task(name="sums", dataset=samples, solver=agent, scorer=[includes(), grades()])


def answers() -> Task:
    question = ChatMessageUser(content=[ContentText(text="What is this?"), ContentImage(image=DOT, detail="low")])
    return Task(name="dots", dataset=[Sample([question], target="a dot", id=1)], solver=generate(), scorer=half())


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        told: dict[str, Any] = {"log_dir": folder, "display": "none", "log_realtime": False}
        (log,) = eval(agents(), model=scripted(), message_limit=10, fail_on_error=False, **told)
        shutil.copy(log.location, HERE / "agents.eval")
        model = get_model("mockllm/model", custom_outputs=[said("a dot"), said("nothing")])
        (log,) = eval(answers(), model=model, epochs=2, max_samples=1, log_format="json", **told)
        shutil.copy(log.location, HERE / "answers.json")


if __name__ == "__main__":
    main()
