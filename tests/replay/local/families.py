"""Chat templates in the manner of several model families, written for these tests, and their control tokens."""

from __future__ import annotations

PLAIN = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA = (
    "{% if messages[0].role == 'system' %}{% set s = messages[0].content %}{% set rest = messages[1:] %}"
    "{% else %}{% set s = '' %}{% set rest = messages %}{% endif %}"
    "<|sh|>system<|eh|>\n\nToday: {{ strftime_now('%d %b %Y') }}\n{{ s }}"
    "{% if tools %}{% for t in tools %}{{ t | tojson }}\n{% endfor %}{% endif %}<|eot_id|>"
    "{% for m in rest %}{% if m.tool_calls %}{% if m.tool_calls | length != 1 %}{{ raise_exception('one call') }}"
    '{% endif %}<|sh|>assistant<|eh|>\n\n{"name": "{{ m.tool_calls[0].function.name }}", "parameters": '
    "{{ m.tool_calls[0].function.arguments | tojson }}}<|eot_id|>"
    "{% elif m.role == 'tool' %}<|sh|>ipython<|eh|>\n\n{{ m.content | tojson }}<|eot_id|>"
    "{% else %}<|sh|>{{ m.role }}<|eh|>\n\n{{ m.content | trim }}<|eot_id|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|sh|>assistant<|eh|>\n\n{% endif %}"
)
MISTRAL = (
    "{% if messages[0].role == 'system' %}{% set s = messages[0].content + '\n\n' %}{% set rest = messages[1:] %}"
    "{% else %}{% set s = '' %}{% set rest = messages %}{% endif %}"
    "{% set ns = namespace(turn='user', last=0) %}{% for m in rest %}{% if m.role == 'user' %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% if m.role == 'user' or (m.role == 'assistant' and not"
    " m.tool_calls) %}{% if m.role != ns.turn %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% set ns.turn = 'assistant' if m.role == 'user' else 'user' %}{% endif %}{% endfor %}"
    "{% for m in rest %}{% if m.role == 'user' %}{% if loop.index0 == ns.last and tools %}[AVAILABLE_TOOLS]"
    "{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}[INST]{{ s if loop.first }}{{ m.content }}[/INST]"
    "{% elif m.tool_calls %}[TOOL_CALLS][{% for c in m.tool_calls %}{% if c.id | length != 9 %}"
    '{{ raise_exception(\'ids have nine characters\') }}{% endif %}{"name": "{{ c.function.name }}", "arguments": '
    '{{ c.function.arguments | tojson }}, "id": "{{ c.id }}"}{{ \', \' if not loop.last }}{% endfor %}]</s>'
    '{% elif m.role == \'tool\' %}[TOOL_RESULTS]{"content": {{ m.content | tojson }}, "call_id": '
    "\"{{ m.tool_call_id }}\"}[/TOOL_RESULTS]{% elif m.role == 'assistant' %}{{ m.content }}</s>"
    "{% else %}{{ raise_exception('only user, assistant and tool') }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "<|im_start|>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>model\n{% endif %}"
)
THINKER = (
    "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}"
    "{% endif %}{% endfor %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content and loop.index0 > ns.last %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
R1 = PLAIN.replace("assistant\n' }}{% endif %}", "assistant\n<think>\n' }}{% endif %}")
XML = PLAIN.replace("{% for m", "{% if tools %}{{ tools | tojson }}{% endif %}{% for m").replace(
    "m['content'] + '<", "m['content'] + (m.tool_calls[0].function.name if m.tool_calls else '') + '<"
)

TEMPLATES = {
    "plain": PLAIN,
    "llama": LLAMA,
    "mistral": MISTRAL,
    "gemma": GEMMA,
    "thinker": THINKER,
    "r1": R1,
    "xml": XML,
    "lstrip": PLAIN.replace("<|im_end|>", "<end>"),
    "no-head": PLAIN.replace("'<|im_start|>' + m", "m"),
}
CONTROLS = {
    "llama": ("<|sh|>", "<|eh|>", "<|eot_id|>", "<|eom_id|>", "<|python_tag|>"),
    "mistral": ("</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[ARGS]"),
}
