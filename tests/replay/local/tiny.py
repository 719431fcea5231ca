"""A Hugging Face folder made in a second: a seeded random Llama, a small trained tokenizer, ChatML with tools.

The model says nonsense, but it is a whole one: grouped-query attention, rotary positions, safetensors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VOCABULARY_SIZE = 500

TOOLS_TEXT = (
    "{{- 'You may call one or more functions to assist with the user query.\n\nYou are provided with function"
    " signatures within <tools></tools> XML tags:\n<tools>' }}"
    "{%- for tool in tools %}{{- '\n' + (tool | tojson) }}{%- endfor %}"
    "{{- '\n</tools>\n\nFor each function call, return a json object with function name and arguments within"
    ' <tool_call></tool_call> XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n'
    "</tool_call>' }}"
)
SYSTEM = (
    "{%- set first = messages[0]['content'] if messages and messages[0]['role'] == 'system' else '' %}"
    "{%- if tools or first %}{{- '<|im_start|>system\n' + first }}"
    "{%- if tools %}{{- '\n\n' if first }}" + TOOLS_TEXT + "{%- endif %}{{- '<|im_end|>\n' }}{%- endif %}"
)
CALLS = (
    "{%- for call in message['tool_calls'] or [] %}"
    "{{- '\n' if message['content'] or not loop.first }}"
    "{{- '<tool_call>\n{\"name\": \"' + call['function']['name'] + '\", \"arguments\": ' }}"
    "{%- if call['function']['arguments'] is string %}{{- call['function']['arguments'] }}"
    "{%- else %}{{- call['function']['arguments'] | tojson }}{%- endif %}"
    "{{- '}\n</tool_call>' }}{%- endfor %}"
)
CHATML = (
    SYSTEM + "{%- for message in messages %}"
    "{%- if message['role'] == 'tool' %}"
    "{{- '<|im_start|>user\n<tool_response>\n' + message['content'] + '\n</tool_response><|im_end|>\n' }}"
    "{%- elif not (loop.first and message['role'] == 'system') %}"
    "{{- '<|im_start|>' + message['role'] + '\n' + (message['content'] or '') }}" + CALLS + "{{- '<|im_end|>\n' }}"
    "{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
"""ChatML; tools are listed in the system message and called as `<tool_call>` JSON (the format of the Hermes models)."""

CORPUS = (
    "You are a helpful assistant. You may call one or more functions to assist with the user query.",
    "For each function call, return a json object with function name and arguments within <tool_call></tool_call>.",
    '<tool_call>\n{"name": "search", "arguments": {"query": "the account of the counterparty"}}\n</tool_call>',
    '<tool_call>\n{"name": "post_entry", "arguments": {"account": "1200", "side": "debit", "amount": 119.00}}\n'
    "</tool_call>",
    '{"type": "function", "function": {"name": "lookup", "description": "Look up a value.", "parameters":'
    ' {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]}}}',
    '<tool_response>\n{"result": true, "error": null, "items": [1, 2, 3, 40, 500]}\n</tool_response>',
    "<think>\nThe user wants the number of open invoices, so I should search for them first.\n</think>",
    "What is the capital of France? The capital of France is Paris. Please post the payment to the account.",
)


def tiny_folder(path: Path, *, seed: int = 0, context_length: int = 2048, template: str | None = CHATML) -> Path:
    """Write the model and its tokenizer into `path` (made where it is missing) and return it.

    3 layers, 4 query and 2 key-value heads of 16, 0.3 M parameters, float32. `template` None: no chat template.
    """
    write_tokenizer(path, template)
    write_model(path, seed, context_length)
    return path


def write_tokenizer(path: Path, template: str | None = CHATML) -> None:
    """A byte-level BPE tokenizer of 500 entries, trained in place."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 2, trainer)
    wrapper: Any = PreTrainedTokenizerFast
    wrapper(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=template,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(path)


def write_model(path: Path, seed: int, context_length: int) -> None:
    """A random Llama whose next-token distributions are neither flat nor certain."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=64,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context_length,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=SPECIAL_TOKENS.index("<|im_end|>"),
        pad_token_id=SPECIAL_TOKENS.index("<|endoftext|>"),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(path)
