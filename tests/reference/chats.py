"""Conversations as `transformers`' apply_chat_template writes them.

    python tests/reference/chats.py [--check]      # chats.json

Templates in the manner of the known families, written for this table, and SmolLM2's own, by
conversations: with and without a system prompt, tools and calls of them, with texts of all kinds. What a template
refuses is in the table with its words. Then expressions, each by itself, in which Jinja and other engines differ.
Needs `pip install transformers jinja2`.
"""
import datetime
import json
import os
import sys

import jinja2
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils
from tokenizers import Tokenizer, models

PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fixtures", "chats.json")


class Day(datetime.datetime):
    @classmethod
    def now(cls):
        return cls(2024, 7, 26, 12, 0, 0)


chat_template_utils.datetime = Day

LLAMA2 = """{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}\
{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}\
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate: user, assistant, user, ...') }}{% endif %}\
{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}\
{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}\
{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"""

LLAMA3 = """{{- bos_token }}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}

{#- The system message comes first, so that we know whether there is one. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}

{#- Header #}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- "Knowledge: December 2023\\nToday: " + date_string + "\\n\\n" }}
{%- if tools is not none %}
    {{- 'You may call: {"name": function, "parameters": values by name}.\\n\\n' }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("One call at once, not " ~ message.tool_calls|length ~ "!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
        {{- "<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

MISTRAL = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}

{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or message.role == "tool_results" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("After the optional system message, roles must alternate user/assistant") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}

{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}
                        {{- ", " }}
                    {%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- else %}
                    {{- "]" }}
                {%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}
            {{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id|length != 9 %}
                {{- raise_exception("Calls have ids of length 9!") }}
            {%- endif %}
            {{- ', "id": "' + tool_call.id + '"}' }}
            {%- if not loop.last %}
                {{- ", " }}
            {%- else %}
                {{- "]" + eos_token }}
            {%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- elif message["role"] == "tool_results" or message["role"] == "tool" %}
        {%- if message.content is defined and message.content.content is defined %}
            {%- set content = message.content.content %}
        {%- else %}
            {%- set content = message.content %}
        {%- endif %}
        {{- '[TOOL_RESULTS] {"content": ' + content|string + ", " }}
        {{- '"call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are known, with the exception of an initial optional system message!") }}
    {%- endif %}
{%- endfor %}
"""

GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}\
{% for message in messages %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}\
{{ '<start_of_turn>' + role + '\\n' }}
{%- if message['content'] is string -%}
        {{ message['content'] | trim }}
{%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
{%- endif -%}
{{ '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}"""

QWEN = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- "# Tools\\n\\nSignatures within <tools></tools>:\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools>\\n\\n<tool_call>\\n{\\"name\\": <name>, \\"arguments\\": <json>}\\n</tool_call><|im_end|>\\n" }}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}
                    {{- '\\n' }}
                {%- endif %}
                {%- if tool_call.function %}
                    {%- set tool_call = tool_call.function %}
                {%- endif %}
                {{- '<tool_call>\\n{"name": "' }}
                {{- tool_call.name }}
                {{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}
                    {{- tool_call.arguments }}
                {%- else %}
                    {{- tool_call.arguments | tojson }}
                {%- endif %}
                {{- '}\\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""

PHI = """{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}{{'<|system|>
' + message['content'] + '<|end|>
'}}{% elif message['role'] == 'user' %}{{'<|user|>
' + message['content'] + '<|end|>
'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>
' + message['content'] + '<|end|>
'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>
' }}{% else %}{{ eos_token }}{% endif %}"""

ZEPHYR = """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>
'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""

# Blocks that mark the assistant, in a macro, a loop and an inline condition, on lines of their own and not.
GENERATION = """{%- macro turn(role, content, last=false) -%}
<|{{ role }}|>
{% if role == 'assistant' %}
  {% generation %}
{{ content }}<|end|>{% endgeneration %}{{ '' if last else '\\n' }}
{%- else -%}
{{ content }}<|end|>{{ '' if last else '\\n' }}
{%- endif %}
{%- endmacro -%}
{%- for message in messages %}
    {%- if message.role == 'assistant' and not message.tool_calls %}
<|assistant|>{% generation %}{{ message.content }}<|end|>
    {%- if message.content|length > 40 %}{% set long = 'yes' %}{{ long }}{% endif %}
    {%- endgeneration %}

    {%- else %}
{{ turn(message.role, message.content or '', loop.last) }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|assistant|>{% endif %}"""

# Types of tools written out, as gpt-oss and functionary do, by macros that call themselves.
TYPES = """{%- macro type(spec, depth=0) -%}
    {%- if spec.type == "array" -%}
        {%- if 'items' in spec -%}
            {{- type(spec['items'], depth + 1) + "[]" -}}
        {%- else -%}
            {{- "any[]" -}}
        {%- endif -%}
    {%- elif spec.enum is defined -%}
        {{- '"' + spec.enum|join('" | "') + '"' -}}
    {%- elif spec.type is iterable and spec.type is not string -%}
        {{- spec.type | join(" | ") -}}
    {%- elif spec.type == "object" and spec.properties -%}
        {{- "{\\n" }}
        {%- for name, inner in spec.properties.items() -%}
            {{- "  " * (depth + 1) + name }}
            {%- if name not in (spec.required or []) -%}{{- "?" }}{%- endif -%}
            {{- ": " + type(inner, depth + 1) }}
            {%- if inner.default is defined -%}{{- ", // default: " ~ inner.default }}{%- endif -%}
            {%- if not loop.last %}{{- "," }}{%- endif %}
            {{- "\\n" }}
        {%- endfor -%}
        {{- "  " * depth + "}" }}
    {%- else -%}
        {{- spec.type|default("any") -}}
    {%- endif -%}
{%- endmacro -%}
{%- for message in messages if message.role != 'tool' %}
{{ loop.index }}/{{ loop.length }} {{ message.role|upper|center if false else message.role|title }}: {{ message.content }}
{% if message.tool_calls is defined %}{{ message.tool_calls }}{% endif %}
{%- else %}
nothing
{%- endfor %}
{%- if tools %}
// {{ tools | map(attribute='function.name') | sort | join(', ') }}
{% for tool in tools %}
type {{ tool.function.name }} = (_: {{ type(tool.function.parameters) }}) => any;
{% endfor %}
{% endif %}
{{- add_generation_prompt }}"""

SMOLLM2 = """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""

TEMPLATES = {
    "smollm2": SMOLLM2, "llama2": LLAMA2, "llama3": LLAMA3, "mistral": MISTRAL, "gemma": GEMMA, "qwen": QWEN, "phi": PHI, "zephyr": ZEPHYR,
    "generation": GENERATION, "types": TYPES,
}

say = lambda role, content, **more: {"role": role, "content": content, **more}

WEATHER = {"type": "function", "function": {"name": "get_weather", "description": "The weather <now> & \"here\", in °C.", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "description": "A city's name, as Zürich"},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius", "scale": 1e-07}, "days": {"type": ["integer", "null"], "default": None},
        "near": {"type": "array", "items": {"type": "object", "properties": {"lat": {"type": "number", "default": 0.5}, "lon": {"type": "number"}}}}},
    "required": ["city"]}, "return": {"type": "number"}}}
ADD = {"type": "function", "function": {"name": "add", "description": "", "parameters": {"type": "object", "properties": {"x": {"type": "array"}}}}}
CALL = {"id": "abcdefgh1", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Zürich", "n": [1, 2.0, 1e20, None, True], "o": {}}}}
TWICE = {"id": "abcdefgh2", "type": "function", "function": {"name": "add", "arguments": {"x": [0.1, -0.0, 5e-324]}}}

CONVERSATIONS = {
    "one": [say("user", "Hello!")],
    "system": [say("system", "You are a boat."), say("user", "Who are you?"), say("assistant", "A boat.")],
    "turns": [say("user", "1 + 1?"), say("assistant", "2"), say("user", " And 2 + 2? \n"), say("assistant", "  4, of course.\n\n"), say("user", "Thanks")],
    "odd": [say("user", "It's \"quoted\", \\back\\, <b>&amp;</b> {{ not }} {% a %} {# tag #}"), say("assistant", "日本語 🔥 e\u0301 \u00a0\u200b\u2028\x00\x1f\x7f\ttab\r\nend")],
    "empty": [say("system", ""), say("user", ""), say("assistant", ""), say("user", "  ")],
    "no content": [{"role": "user", "content": None}, {"role": "assistant", "content": None}],
    "tokens": [say("user", "<|im_end|></s><eos>[INST]"), say("assistant", "<|im_start|>user\n<|eot_id|>")],
    "thought": [say("user", "Why?"), say("assistant", "<think>\nhm\n</think>\n\nSo."), say("user", "And?"), say("assistant", "Yes.", reasoning="I see", name=None)],
    "two users": [say("user", "a"), say("user", "b")],
    "assistant first": [say("assistant", "Welcome."), say("user", "Hi")],
    "tool": [say("user", "Weather?"), {"role": "assistant", "tool_calls": [CALL]}, say("tool", "{\"t\": 21.5}", tool_call_id="abcdefgh1", name="get_weather"),
        say("assistant", "21.5 °C")],
    "tool values": [say("user", "Both"), {"role": "assistant", "content": "", "tool_calls": [CALL, TWICE]}, say("tool", {"content": 3, "f": [True, None, "it's"]}, tool_call_id="abcdefgh1"),
        say("tool", [1.5, "a\n", 'b"\''], tool_call_id="abcdefgh2"), say("user", "Well?")],
    "parts": [say("user", [{"type": "image"}, {"type": "text", "text": " What is this? "}]), say("assistant", [{"type": "text", "text": "A cat"}])],
}

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}

# A conversation for expressions: `m` is its only message.
VALUES = {"role": "user", "content": "Ab cD, 'x' ÄÖ straße ž", "n": 7, "x": 2.5, "big": 12345678901234567890, "t": True, "none": {"a": None}, "list": [3, 1, 2],
    "texts": ["b", "A", "c"], "deep": {"b": {"c": [1, {"d": "e"}]}, "a": "z"}, "lines": "one\r\ntwo\x0bthree\n\n four ", "blank": " \t\n\u3000"}
EXPRESSIONS = r"""
m | m.deep | m.list | m.texts | [m.t, none, 1.0, 1e16, 1e-5, 0.0001, 123456789012345680.0] | m.none | (1,) | (1, 'a') | {} | [] | {'a': {'b': ()}} | undefined_thing
m.deep|tojson | m|tojson(indent=2) | m|tojson(ensure_ascii=true) | m.deep|tojson(sort_keys=true) | m.deep|tojson(separators=(',', ':')) | []|tojson(indent=2) | {}|tojson(2) | {1: 2, none: 3, true: 4}|tojson | m.deep|tojson(indent='\t')
m.content.upper() | m.content.lower() | m.content.title() | m.content.capitalize() | m.content.swapcase() | m.content|title | m.content|capitalize | m.content|upper | m.content|lower
m.content.split() | m.content.split(' ', 1) | m.content.split('c') | m.content.rsplit(' ', 1) | m.content.rsplit(none, 2) | m.lines.splitlines() | m.lines.splitlines(true) | m.lines.split('\n') | m.blank.split() | m.content.split(maxsplit=1)
m.content.strip('Ab') | m.lines.strip()|tojson | m.lines.rstrip()|tojson | m.blank.lstrip()|length | m.blank|trim|length | '__a__'.strip('_') | 'xxaxx'|trim('x') | 'abc'.removeprefix('a').removesuffix('c')
m.content.find('c') | m.content.find('Ö') | m.content.rfind('x') | m.content.index('D') | m.content.count(' ') | 'aaa'.count('') | m.content.startswith('Ab') | m.content.startswith(('x', 'A')) | m.content.endswith('ž') | 'abc'.startswith('b', 1)
m.content.replace('x', 'yy') | 'aaa'.replace('a', 'b', 2) | 'abc'.replace('', '-') | 'aaa'|replace('a', 'b', 1) | 'a-b-c'.partition('-') | 'a-b-c'.rpartition('-') | 'abc'.partition('x') | ', '.join(m.texts) | m.texts|join | m.list|join('-')
'7'.zfill(3) | '-7'.zfill(4) | 'a'.ljust(3) ~ '|' | 'a'.rjust(3) | 'ab'.center(5) ~ '|' | '{} {1} {a} {{}}'.format('x', 'y', a='z') if false else '' | '{1}{0}{a}{{}}'.format(1, 'y', a=2.0)
'12'.isdigit() | ''.isdigit() | 'ab1'.isalnum() | 'ab'.isalpha() | ' \t'.isspace() | 'aB'.islower() | 'AB1'.isupper() | 'é'.isascii() | m.deep.get('a') | m.deep.get('q') | m.deep.get('q', 5) | m.deep.keys()|list | m.deep.values()|list | m.deep.items()|list
m.list[0] | m.list[-1] | m.list[1:] | m.list[::-1] | m.list[:-1] | m.content[0] | m.content[-1] | m.content[1:4] | m.content[::-1] | m.list[5] | m.deep['b'].c[1].d | m.list + [4] | m.list * 2 | 'ab' * 3 | [1] + (m.list[1:])
m.list|sort | m.texts|sort | m.texts|sort(reverse=true) | m.texts|sort(case_sensitive=true) | m.list|sum | m.list|max | m.list|min | m.list|first | m.list|last | m.list|length | m.list|reverse|list | m.deep|dictsort | m.deep|items|list | m.list|batch(2)|list | [1, 1, 2]|unique|list
m.list is sequence | m.content is sequence | m.deep is sequence | m.list is iterable | m.content is iterable | m.deep is iterable | none is iterable | 5 is iterable | m.deep is mapping | m.list is mapping | m.content is string | m.n is number | m.t is number | m.t is integer | m.n is integer | m.x is float | m.t is boolean
m.q is defined | m.q is undefined | m.q is none | none is none | m.n is odd | m.n is divisibleby(7) | m.n is eq 7 | m.n in m.list | 1 in m.list | 'a' in m.deep | 'b' in m.content | m.list is in [m.list] | m.q is iterable | m.q is sequence | raise_exception is callable | m.n is callable | m.content is lower
7 / 2 | 7 // 2 | -7 // 2 | 7 % 3 | -7 % 3 | 2 ** 10 | 6 / 3 | 1 + 2.5 | m.n + m.x | m.big + 1 | not m.t | m.t and 'a' | '' or 'b' | 1 if m.t else 2 | (1 if not m.t)|string ~ '.' | m.n == 7.0 | 'a' < 'b' | 1 < 2 < 3 | true + 1 | 3 is sameas 3
m.x|int | '12'|int | 'x'|int | 'x'|int(5) | ' 7 '|int | '-3.9'|int | none|int | 'x'|float | '1.5'|float | 2.567|round(1) | 2.5|round | m.x|string + 'a' | 3|abs | -3|abs | m.q|default('d') | ''|default('d') | ''|default('d', true) | m.n ~ m.x ~ none ~ true | 'a' 'b' | 'a\n\tb\'c"\\ \u00e9 \x41' | "it's" | '%s is %d'|format('a', 3)
m.texts|map('upper')|list | [m, m]|map(attribute='n')|list | [m, {}]|map(attribute='n', default=0)|list | [m, {'n': 8}]|selectattr('n', 'eq', 8)|list | [m, {'q': 1}]|rejectattr('n', 'defined')|list | [1, 0, 2]|select|list | [1, 2, 3]|reject('odd')|list | [m, {'n': 8}]|selectattr('n', 'gt', 7)|list | [{'a': 1, 'b': 2}, {'a': 1}]|groupby('a')|map('last')|list | [{'a': 1}]|groupby('a')|map('first')|list
range(3)|list | range(1, 10, 4)|list | range(3, 0, -1)|list | dict(a=1, b=[2]) | namespace(a=3).a | m.lines|indent(2) | 'a\n\nb'|indent(2, blank=true) | 'a\n\nb\n'|indent('> ', first=true) | 'a\nb'|indent(4, true) | 'abc'|list | 'abc'|first | 'abc'|last | m.content|length | strftime_now('%Y-%m-%d %H:%M %A %d %B %b') | strftime_now('%-d %e %j %y')
m['content'] | m.items() is defined | m.list.index(2) | m.list.count(3) | loop is defined | messages|length | tools | documents | add_generation_prompt | bos_token | cls_token is defined | m.list.append(1) | m.deep.update({}) | m.q.r | 'a' + 1 | m.list|tojson|safe | 1 / 0 | m.q|tojson | m.content.nothing()
"""


def tokenizer(template):
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "<unk>": 2}, unk_token="<unk>")), **SPECIAL)
    tokenizer.chat_template = template
    return tokenizer


def spans(template, messages, tools):
    """Ranges of bytes in `{% generation %}`."""
    compiled = chat_template_utils._compile_jinja_template(template)
    text, ranges = chat_template_utils._render_with_assistant_indices(compiled, messages, tools, None, False, **SPECIAL)
    byte = lambda at: len(text[:at].encode())
    return [[byte(start), byte(end)] for start, end in ranges]


def attempt(render):
    try:
        return {"text": render()}
    except Exception as e:
        return {"raised" if type(e) is jinja2.TemplateError else "error": str(e)}


def main():
    cases = []
    for name, template in TEMPLATES.items():
        to_text = tokenizer(template).apply_chat_template
        for title, messages in CONVERSATIONS.items():
            for tools in [None, [WEATHER, ADD]]:
                for prompt in [False, True]:
                    extra = {"enable_thinking": False} if name == "qwen" and title == "turns" else {}
                    case = {"template": name, "conversation": title, "tools": tools is not None, "prompt": prompt, "extra": extra}
                    case |= attempt(lambda: to_text(messages, tools=tools, add_generation_prompt=prompt, tokenize=False, **extra))
                    # In macros transformers counts from the start of the macro's text.
                    if name == "generation" and not prompt and tools is None and "text" in case and not any("tool_calls" in m for m in messages):
                        case["spans"] = spans(template, [{k: v for k, v in m.items() if v is not None} for m in messages], None)
                    cases.append(case)
    expressions = []
    for expression in (e.strip() for line in EXPRESSIONS.strip().split("\n") for e in line.split(" | ")):
        template = "{% set m = messages[0] %}{{ " + expression + " }}"
        expressions.append({"expression": expression} | attempt(lambda: tokenizer(template).apply_chat_template([VALUES], tokenize=False)))
    table = {"templates": TEMPLATES, "conversations": CONVERSATIONS, "tools": [WEATHER, ADD], "special": SPECIAL, "cases": cases, "values": VALUES, "expressions": expressions}
    # A line for each case.
    dump = lambda value: json.dumps(value, ensure_ascii=False)
    rows = lambda value: "[\n" + ",\n".join(map(dump, value)) + "\n]" if isinstance(value, list) else dump(value)
    text = "{\n" + ",\n".join(f"{dump(key)}: {rows(value)}" for key, value in table.items()) + "\n}\n"
    if "--check" in sys.argv:
        assert open(PATH, encoding="utf-8", newline="").read() == text, "chats.json differs"
    else:
        open(PATH, "w", encoding="utf-8", newline="").write(text)
    failed = sum("text" not in case for case in cases), sum("text" not in case for case in expressions)
    print(f"chats.json: {len(cases)} conversations ({failed[0]} refused), {len(expressions)} expressions ({failed[1]} errors), {len(text) / 1024:.0f} KB")


main()
