"""The one table of attribute names: what each field of a call, a tool or an agent is called in every dialect.

Dialects: OpenTelemetry GenAI (three generations and the indexed names before them), OpenInference, OpenLLMetry
(Traceloop), AgentOps, and the spellings of frameworks that export OpenTelemetry by themselves (pydantic-ai, the Vercel
AI SDK, Google ADK, MLflow, LangSmith). Of several spellings in one span the first in the table holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

Kind = Literal["llm", "agent", "tool", "evaluator", "other"]

# The attributes that say what a span is; values are compared in lower case.
KIND_NAMES = (
    "gen_ai.operation.name",
    "openinference.span.kind",
    "mlflow.spanType",
    "traceloop.span.kind",
    "agentops.span.kind",
    "langsmith.span.kind",
    "ai.operationId",
    "llm.request.type",
    "gen_ai.request.type",
)
KINDS: Mapping[str, Kind] = {
    "chat": "llm",
    "text_completion": "llm",
    "completion": "llm",
    "generate_content": "llm",
    "llm": "llm",
    "llm.call": "llm",
    "chat_model": "llm",
    "ai.generatetext.dogenerate": "llm",
    "ai.streamtext.dostream": "llm",
    "ai.generateobject.dogenerate": "llm",
    "ai.streamobject.dostream": "llm",
    "invoke_agent": "agent",
    "invoke_workflow": "agent",
    "agent": "agent",
    "workflow": "agent",
    "ai.generatetext": "agent",
    "ai.streamtext": "agent",
    "execute_tool": "tool",
    "tool": "tool",
    "ai.toolcall": "tool",
    "evaluator": "evaluator",
}
# Attributes that only one kind of span has, for spans that do not say what they are.
MARKS: tuple[tuple[Kind, tuple[str, ...]], ...] = (
    ("tool", ("gen_ai.tool.call.id", "gen_ai.tool.call.result", "tool_response", "ai.toolCall.id")),
    ("agent", ("pydantic_ai.all_messages", "all_messages_events", "agent_name")),
    ("llm", ("gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.request.model", "llm.model_name", "events")),
)
LLM_PREFIXES = ("llm.input_messages.", "llm.output_messages.", "gen_ai.prompt.", "gen_ai.completion.")

FIELDS: Mapping[str, tuple[str, ...]] = {
    # one call of a model
    "model": (
        "gen_ai.response.model",
        "llm.response.model_name",
        "ai.response.model",
        "gen_ai.request.model",
        "llm.model_name",
        "llm.request.model_name",
        "mlflow.llm.model",
        "ai.model.id",
        "model_name",
    ),
    "finish": (
        "gen_ai.response.finish_reasons",
        "gen_ai.response.finish_reason",
        "gen_ai.response.stop_reason",
        "llm.finish_reason",
        "llm.response.finish_reason",
        "llm.response.stop_reason",
        "ai.response.finishReason",
    ),
    "choices": ("gen_ai.request.choice.count", "gen_ai.request.n", "llm.n"),
    "prompt_tokens": (
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.prompt_tokens",
        "llm.token_count.prompt",
        "llm.usage.prompt_tokens",
        "ai.usage.promptTokens",
        "ai.usage.inputTokens",
    ),
    "completion_tokens": (
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.completion_tokens",
        "llm.token_count.completion",
        "llm.usage.completion_tokens",
        "ai.usage.completionTokens",
        "ai.usage.outputTokens",
    ),
    "cached_tokens": (
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_read_input_tokens",
        "gen_ai.usage.details.cache_read_tokens",
        "llm.token_count.prompt_details.cache_read",
        "llm.token_count.prompt_details.cache_input",
        "ai.usage.cachedInputTokens",
    ),
    "cost": ("llm.cost.total", "gen_ai.usage.cost", "gen_ai.usage.total_cost", "operation.cost"),
    # who and where
    "agent": ("gen_ai.agent.name", "agent.name", "agentops.agent.name", "agent_name", "gen_ai.workflow.name"),
    "entity": ("traceloop.entity.name", "agentops.entity.name", "ai.telemetry.functionId"),
    "session": (
        "gen_ai.conversation.id",
        "session.id",
        "traceloop.association.properties.session_id",
        "traceloop.association.properties.thread_id",
        "langfuse.session.id",
        "langsmith.trace.session_id",
        "mlflow.trace.session",
        "ai.telemetry.metadata.sessionId",
        "gcp.vertex.agent.session_id",
    ),
    "error": ("error.type", "exception.type"),
    # one call of a tool
    "tool_name": (
        "gen_ai.tool.name",
        "tool.name",
        "ai.toolCall.name",
        "traceloop.entity.name",
        "agentops.entity.name",
        "mlflow.spanFunctionName",
    ),
    "tool_call_id": ("gen_ai.tool.call.id", "tool_call.id", "ai.toolCall.id", "tool.id"),
    "tool_arguments": (
        "gen_ai.tool.call.arguments",
        "tool_arguments",
        "ai.toolCall.args",
        "gcp.vertex.agent.tool_call_args",
        "mlflow.spanInputs",
        "input.value",
        "traceloop.entity.input",
        "agentops.entity.input",
        "tool.parameters",
    ),
    "tool_result": (
        "gen_ai.tool.call.result",
        "tool_response",
        "tool.result",
        "ai.toolCall.result",
        "gcp.vertex.agent.tool_response",
        "mlflow.spanOutputs",
        "output.value",
        "traceloop.entity.output",
        "agentops.entity.output",
    ),
    # one evaluation: an event, or an evaluator's span
    "score_name": ("gen_ai.evaluation.name", "evaluation.name", "annotation.name"),
    "score_value": ("gen_ai.evaluation.score.value", "evaluation.score", "annotation.score"),
    "score_label": ("gen_ai.evaluation.score.label", "evaluation.label", "annotation.label"),
    "score_explanation": (
        "gen_ai.evaluation.explanation",
        "gen_ai.evaluation.score.explanation",
        "evaluation.explanation",
        "annotation.explanation",
    ),
    "score_output": ("output.value", "mlflow.spanOutputs", "traceloop.entity.output"),
}

# Sampling parameters by our name. What stands in a JSON object has the last part of these as its key.
SAMPLING: Mapping[str, tuple[str, ...]] = {
    "temperature": ("gen_ai.request.temperature", "llm.temperature", "llm.request.temperature"),
    "top_p": ("gen_ai.request.top_p", "llm.top_p", "llm.request.top_p"),
    "top_k": ("gen_ai.request.top_k", "llm.top_k"),
    "max_tokens": ("gen_ai.request.max_tokens", "llm.request.max_tokens", "ai.settings.maxOutputTokens"),
    "seed": ("gen_ai.request.seed", "gen_ai.openai.request.seed"),
    "stop": ("gen_ai.request.stop_sequences", "llm.chat.stop_sequences"),
    "frequency_penalty": ("gen_ai.request.frequency_penalty", "llm.frequency_penalty"),
    "presence_penalty": ("gen_ai.request.presence_penalty", "llm.presence_penalty"),
    "reasoning_effort": ("gen_ai.request.reasoning_effort", "gen_ai.openai.request.reasoning_effort"),
}
SAMPLING_OBJECTS = ("llm.invocation_parameters", "mlflow.invocationParams", "mlflow.spanInputs")
SAMPLING_KEYS: Mapping[str, str] = {
    **{name: name for name in SAMPLING},
    "max_output_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "stop_sequences": "stop",
}

# Messages: one attribute with the whole list (as JSON text or structured), or one attribute for each field of each.
SYSTEM_VALUES = ("gen_ai.system_instructions", "gen_ai.request.instructions")
INPUT_VALUES = ("gen_ai.input.messages", "ai.prompt.messages", "gen_ai.prompt", "gcp.vertex.agent.llm_request")
OUTPUT_VALUES = ("gen_ai.output.messages", "gen_ai.completion", "gcp.vertex.agent.llm_response")
INPUT_INDEXED = ("llm.input_messages", "gen_ai.prompt", "gen_ai.input.messages", "llm.prompts")
OUTPUT_INDEXED = ("llm.output_messages", "gen_ai.completion", "gen_ai.output.messages", "llm.choices")
# What a wrapper put in and out, of whatever shape: read only where none of the above is there.
INPUT_WRAPPED = ("mlflow.spanInputs", "input.value", "traceloop.entity.input", "agentops.entity.input", "ai.prompt")
OUTPUT_WRAPPED = ("mlflow.spanOutputs", "output.value", "traceloop.entity.output", "agentops.entity.output")
RESPONSE_TEXT, RESPONSE_CALLS = ("ai.response.text", "ai.response.object"), "ai.response.toolCalls"
TRANSCRIPTS = ("mlflow.chat.messages", "pydantic_ai.all_messages")  # the input and, behind it, the output

TOOL_VALUES = ("gen_ai.tool.definitions", "mlflow.chat.tools", "ai.prompt.tools", "gen_ai.request.tools")
TOOL_INDEXED = ("llm.tools", "llm.request.functions", "gen_ai.request.functions", "gen_ai.request.tools")
TOOL_REQUEST = "model_request_parameters"  # pydantic-ai: {function_tools, output_tools}
SCORES_INDEXED = ("annotations", "evaluations")

# Events: of a span, or log records.
EVENT_ROLES: Mapping[str, str] = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
}
CHOICE_EVENT = "gen_ai.choice"
PROMPT_EVENT, COMPLETION_EVENT = "gen_ai.content.prompt", "gen_ai.content.completion"
DETAILS_EVENT = "gen_ai.client.inference.operation.details"
SCORE_EVENT = "gen_ai.evaluation.result"
EXCEPTION_EVENT = "exception"
EVENT_BODIES = ("gen_ai.event.content", "event.body", "event_content")
EVENT_LISTS = ("events",)  # pydantic-ai: the events as one attribute


def first(attributes: Mapping[str, Any], field: str) -> Any:
    """The value of a field of the table under the first of its names that the span has; None without one."""
    return first_of(attributes, FIELDS[field])


def first_of(attributes: Mapping[str, Any], names: Iterable[str]) -> Any:
    """The first value that is there and not empty text."""
    for name in names:
        value = attributes.get(name)
        if value is not None and value != "":
            return value
    return None


def kind_of(attributes: Mapping[str, Any]) -> Kind:
    """What a span is, by what it says of itself or else by what only such spans have."""
    said = False
    for name in KIND_NAMES:
        value = attributes.get(name)
        if isinstance(value, str):
            said = True
            kind = KINDS.get(value.lower())
            if kind is not None:
                return kind
    if said:
        return "other"
    for marked, names in MARKS:
        if not attributes.keys().isdisjoint(names):
            return marked
    return "llm" if any(name.startswith(LLM_PREFIXES) for name in attributes) else "other"
