"""Make the logs of this folder (see README.md) with LangSmith's and LangChain's own objects: no model, no network.

usage: python make.py
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

os.environ["LANGSMITH_TRACING"] = "false"
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langchain_core.tracers.base import BaseTracer
from langsmith.run_trees import RunTree
from langsmith.schemas import Run

HERE = Path(__file__).parent
SPACE = uuid.UUID("5d6a2a52-5f0a-4b5e-9a44-3f6f1f6b2c11")
PROJECT = uuid.uuid5(SPACE, "project")


class Collector(BaseTracer):
    """Keeps what LangChainTracer would send, in the same schema."""

    def __init__(self) -> None:
        super().__init__(_schema_format="original+chat")
        self.roots: list[Any] = []

    def _persist_run(self, run: Any) -> None:
        self.roots.append(run)


class ScriptedModel(FakeMessagesListChatModel):
    """Says its lines in order; tools are offered to it and ignored."""

    def bind_tools(self, tools: Sequence[Any], **options: Any) -> Any:
        schemas = [
            {"type": "function", "function": {"name": t.name, "description": t.description, "parameters": t.args}}
            for t in tools
        ]
        return self.bind(tools=schemas, temperature=0.5)

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": "scripted-1"}


def says(text: str, *calls: tuple[str, str, dict[str, Any]]) -> AIMessage:
    made = [{"type": "tool_call", "id": call, "name": name, "args": args} for call, name, args in calls]
    usage = {"input_tokens": 50, "output_tokens": 7, "total_tokens": 57, "input_token_details": {"cache_read": 20}}
    return AIMessage(text, tool_calls=made, usage_metadata=usage, response_metadata={"model_name": "scripted-1"})


@tool
def price(item: str) -> str:
    """Tell the price of an item."""
    if item == "unicorn":
        raise ValueError("no such item")
    return f"{item}: 12 francs"


@tool
def expert(question: str) -> str:
    """Ask the expert."""
    lines = [says("", ("call-4", "price", {"item": "saddle"})), says("A saddle costs 12 francs.")]
    helper = create_agent(ScriptedModel(responses=[*lines]), tools=[price], system_prompt="You know prices.")
    return str(helper.invoke({"messages": [HumanMessage(question)]})["messages"][-1].content)


def agent_trace() -> list[Run]:
    """An agent of create_agent: parallel calls, a tool that fails, and an expert who is an agent itself."""
    lines = [
        says("", ("call-1", "price", {"item": "lamp"}), ("call-2", "expert", {"question": "And a saddle?"})),
        says("", ("call-3", "price", {"item": "unicorn"})),
    ]
    agent = create_agent(ScriptedModel(responses=[*lines]), tools=[price, expert], system_prompt="You are a clerk.")
    tracer = Collector()
    with suppress(ValueError):
        agent.invoke({"messages": [HumanMessage("A lamp, a saddle, a unicorn?")]}, {"callbacks": [tracer]})
    return [as_stored(run) for run in below(tracer.roots[0])]


def below(run: Any) -> Iterator[Any]:
    yield run
    for child in run.child_runs:
        yield from below(child)


def as_stored(run: Any, **known: Any) -> Run:
    """The run as LangSmith gives it back."""
    kept = ("id", "name", "start_time", "run_type", "end_time", "extra", "error", "inputs", "outputs", "parent_run_id")
    fields = {key: getattr(run, key) for key in (*kept, "tags", "dotted_order", "trace_id")}
    fields["inputs"] = json.loads(json.dumps(fields["inputs"], default=dumped))
    fields["outputs"] = json.loads(json.dumps(fields["outputs"], default=dumped)) if fields["outputs"] else None
    fields["extra"] = {"metadata": (run.extra or {}).get("metadata", {})} | (
        {"invocation_params": run.extra["invocation_params"]} if "invocation_params" in (run.extra or {}) else {}
    )
    if run.error:  # without this machine's paths
        fields["error"] = "\n".join(line for line in run.error.splitlines() if not line.lstrip().startswith("File "))
    return Run(**fields, session_id=PROJECT, status="error" if run.error else "success", **known)


def dumped(value: Any) -> Any:
    from langchain_core.load import dumpd

    return dumpd(value)


def openai_trace(number: int) -> list[Run]:
    """Runs as `wrap_openai` and `@traceable` make them: OpenAI-shaped, with tokens, cost and feedback."""
    start = datetime(2026, 3, 1, 10, number, tzinfo=UTC)
    parent = RunTree(
        id=uuid.uuid5(SPACE, f"root-{number}"),
        name="shop",
        run_type="chain",
        start_time=start,
        inputs={"question": "Is the lamp in stock?"},
        extra={"metadata": {"customer": "c-1"}},
    )
    tools = [{"type": "function", "function": {"name": "stock", "parameters": {"type": "object", "properties": {}}}}]
    history: list[dict[str, Any]] = [
        {"role": "system", "content": "You keep the stock."},
        {"role": "user", "content": "Is the lamp in stock?"},
    ]
    call = {"id": f"call_{number}", "type": "function", "function": {"name": "stock", "arguments": '{"item": "lamp"}'}}
    first = {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "Look it up."}
    made = [parent, llm(parent, number, 1, history, first, tools)]
    made.append(child(parent, number, 2, "stock", "tool", {"item": "lamp"}, {"output": "3 in stock"}))
    history = [*history, first, {"role": "tool", "tool_call_id": f"call_{number}", "content": "3 in stock"}]
    made.append(llm(parent, number, 3, history, {"role": "assistant", "content": "Yes, three."}, tools))
    parent.end(outputs={"answer": "Yes, three."}, end_time=start + timedelta(seconds=9))
    feedback = {"correct": {"n": 2, "avg": 0.5, "values": {}}, "tone": {"n": 1, "avg": None, "values": {"kind": 1}}}
    stored = [as_stored(parent, feedback_stats=feedback)]
    return stored + [as_stored(run, **numbers(run)) for run in made[1:]]


def child(
    parent: RunTree, number: int, at: int, name: str, kind: Any, inputs: Any, outputs: Any, **extra: Any
) -> RunTree:
    begun = parent.start_time + timedelta(seconds=at)
    identity = uuid.uuid5(SPACE, f"{number}-{at}")
    made = parent.create_child(name, kind, run_id=identity, inputs=inputs, start_time=begun, extra=extra)
    made.end(outputs=outputs, end_time=begun + timedelta(seconds=1))
    return made


def llm(parent: RunTree, number: int, at: int, history: Any, answer: Any, tools: Any) -> RunTree:
    settings = {"model": "gpt-5-mini", "temperature": 0.2, "seed": 7}
    outputs = {"choices": [{"index": 0, "finish_reason": "stop", "message": answer}]}
    metadata = {"ls_model_name": "gpt-5-mini", "ls_provider": "openai"}
    inputs = {"messages": history, "tools": tools, **settings}
    return child(
        parent, number, at, "ChatOpenAI", "llm", inputs, outputs, metadata=metadata, invocation_params=settings
    )


def numbers(run: RunTree) -> dict[str, Any]:
    if run.run_type != "llm":
        return {}
    details = {"prompt_token_details": {"cache_read": 64}, "total_cost": Decimal("0.00021")}
    return {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110, **details}


def write_jsonl(name: str, runs: Sequence[Run]) -> None:
    """One run a line, the latest first, as `Client.list_runs` gives them."""
    lines = [
        run.model_dump_json(exclude_none=True) for run in sorted(runs, key=lambda run: run.dotted_order, reverse=True)
    ]
    (HERE / name).write_text("\n".join(lines) + "\n")


def write_nested(name: str, runs: Sequence[Run]) -> None:
    """The root with its children inside, in an array, as `Client.read_run(load_child_runs=True)` gives it."""
    root, *children = [run.model_dump(mode="json", exclude_none=True) for run in runs]
    (HERE / name).write_text(json.dumps([{**root, "child_runs": children}], indent=1) + "\n")


def write_parquet(name: str, runs: Sequence[Run]) -> None:
    """The columns of the bulk export by its documentation: objects as JSON text, times as timestamps."""
    texts = ("inputs", "outputs", "extra", "feedback_stats", "prompt_token_details")
    rows = []
    for run in runs:
        row = run.model_dump(mode="json")
        rows.append(
            {
                **{key: row[key] for key in ("id", "name", "run_type", "status", "error", "trace_id", "dotted_order")},
                **{key: row[key] for key in ("parent_run_id", "session_id", "tags")},
                **{key: json.dumps(row[key]) if row[key] is not None else None for key in texts},
                **{key: row[key] for key in ("prompt_tokens", "completion_tokens", "total_tokens")},
                "is_root": row["parent_run_id"] is None,
                "total_cost": run.total_cost,
                "start_time": run.start_time.replace(tzinfo=None),
                "end_time": run.end_time.replace(tzinfo=None) if run.end_time else None,
            }
        )
    columns = [(key, pa.string()) for key in ("id", "name", "run_type", "status", "error", "trace_id", "dotted_order")]
    columns += [(key, pa.string()) for key in ("parent_run_id", "session_id", *texts)]
    columns += [("tags", pa.list_(pa.string())), ("is_root", pa.bool_()), ("total_cost", pa.decimal128(18, 8))]
    columns += [(key, pa.int64()) for key in ("prompt_tokens", "completion_tokens", "total_tokens")]
    columns += [("start_time", pa.timestamp("us")), ("end_time", pa.timestamp("us"))]
    table = pa.Table.from_pylist(rows, schema=pa.schema(columns))
    pq.write_table(table, HERE / name, compression="zstd", row_group_size=3)


def main() -> None:
    write_jsonl("agent.jsonl", agent_trace())
    write_nested("shop.json", openai_trace(1))
    write_parquet("bulk.parquet", [*openai_trace(2), *openai_trace(3)])


if __name__ == "__main__":
    main()
