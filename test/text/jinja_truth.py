#!/usr/bin/python3
"""Writes test/text/jinja_cases.h: what Jinja itself (Debian's python3-jinja2), set up as chat templates expect it, makes of our templates.

  test/text/jinja_truth.py > test/text/jinja_cases.h
"""
import json, sys
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(["name:endgeneration"], drop_needle=True), lineno=line)


def raise_exception(message):
    raise ValueError(message)


env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation])
env.filters["tojson"] = lambda x, ensure_ascii=False, indent=None, separators=None, sort_keys=False: json.dumps(
    x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
env.globals["raise_exception"] = raise_exception

talk = {"messages": [{"role": "system", "content": "Be brief. "}, {"role": "user", "content": " Hi, <|im_end|> Zoë! "},
                     {"role": "assistant", "content": "Yo\n"}, {"role": "user", "content": "2+2?"}],
        "add_generation_prompt": True, "bos_token": "<s>", "eos_token": "</s>"}
tools = {**talk, "tools": [{"type": "function", "function": {"name": "add", "description": "Adds \"two\" numbers", "parameters": {
    "type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number", "enum": [1, 2.5, None, True]}}, "required": ["a"]}}}],
    "enable_thinking": False}
calls = {"messages": [{"role": "user", "content": "add"}, {"role": "assistant", "content": None, "tool_calls": [
    {"id": "c1", "type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": "x'y"}}}]}, {"role": "tool", "content": "3", "tool_call_id": "c1"}],
    "add_generation_prompt": True, "bos_token": "<s>", "eos_token": "</s>"}

chatml = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- "# Tools\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step and message.role == "user" and message.content is string and not(message.content.startswith('<tool>') and message.content.endswith('</tool>')) %}
        {%- set ns.multi_step = false %}
        {%- set ns.last = index %}
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
        {%- set reasoning = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>' + message.role + '\\n' + content.strip('\\n') }}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}
                    {{- '\\n' }}
                {%- endif %}
                {%- if tool_call.function %}
                    {%- set tool_call = tool_call.function %}
                {%- endif %}
                {{- '<tool_call>\\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}{{- tool_call.arguments }}{%- else %}{{- tool_call.arguments | tojson }}{%- endif %}
                {{- '}\\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' }}{{- content }}{{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""
headers = """{{- bos_token }}
{%- if custom_tools is defined %}{%- set tools = custom_tools %}{%- endif %}
{%- if not date_string is defined %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}{{- "Environment: ipython\\n" }}{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}{{- tool_call.arguments | tojson }}{{- "}" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}
"""
alternating = """{{ bos_token }}{% for message in messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{% endif %}
{% if message['role'] == 'user' %}
{{ '[INST] ' + message['content'] + ' [/INST]' }}
{% elif message['role'] == 'assistant' %}
{{ message['content'] + eos_token}}
{% else %}
{{ raise_exception('Only user and assistant roles are supported!') }}
{% endif %}
{% endfor %}"""
turns = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- set first_user_prefix = messages[0]['content'] + '\\n\\n' -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}{%- set role = "model" -%}{%- else -%}{%- set role = message['role'] -%}{%- endif -%}
    {{ '<start_of_turn>' + role + '\\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}{{ '<start_of_image>' }}{%- elif item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{'<start_of_turn>model\\n'}}{%- endif -%}
"""
plain = {"a": [3, 1, 2], "s": " Hello World ", "d": {"b": 2, "A": 1, "c": [1, {"x": None}]}, "n": None, "t": True, "f": 1.5, "i": 7, "e": [],
         "people": [{"name": "Bo", "age": 3}, {"name": "al", "age": 5}, {"name": "Cy"}], "u": "naïve Ünïcödé é", "tree": [{"v": 1, "kids": [{"v": 2, "kids": []}]}, {"v": 3, "kids": []}]}
lines = [
    "{{ a }} {{ d }} {{ n }} {{ t }} {{ f }} {{ missing }}|", "{{ a|sort|join(', ') }} {{ a|sort(reverse=true) }}", "{{ s|trim|upper }}{{ s|length }}", "{{ d|dictsort }}{{ d|dictsort(by='value', reverse=true) if false else '' }}",
    "{{ d.items()|list }} {{ d.keys()|list }} {{ d.get('zz', 9) }} {{ d.get('zz') }}", "{{ people|map(attribute='name')|join('/') }}", "{{ people|selectattr('age','defined')|list|length }} {{ people|rejectattr('age','defined')|map(attribute='name')|list }}",
    "{{ people|sort(attribute='name')|map(attribute='name')|list }}", "{{ [1,2,3,4]|select('even')|list }}{{ [0,1,'',none]|select|list }}{{ [1,2]|reject('eq',1)|list }}", "{{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ 2**-1 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }}",
    "{{ 1 + 2 * 3 - 4 }} {{ (1 + 2) * 3 }} {{ -2 ** 2 }} {{ 'a' ~ 1 ~ none }}", "{{ 1 < 2 < 3 }} {{ 1 < 2 > 5 }} {{ 'a' in 'cat' }} {{ 4 not in a }} {{ not t }} {{ not 1 == 2 }}", "{{ a[0] }}{{ a[-1] }}{{ a[1:] }}{{ a[::-1] }}{{ s[1:6] }}{{ s[::-1] }}{{ u[2] }}{{ u[-4:] }}{{ a[5:] }}{{ a[-2:-1] }}",
    "{{ d['b'] }} {{ d.c[1].x }} {{ d.zz }} {{ d.zz is defined }} {{ n is none }} {{ zz is undefined }}", "{{ 'yes' if t else 'no' }} {{ 'yes' if n }}|", "{{ f|int }} {{ '42'|int + 1 }} {{ 'x'|int(5) }} {{ '3.5'|float }} {{ 'ff'|int(base=16) }} {{ -3|abs }}",
    "{{ a|first }} {{ a|last }} {{ e|first is defined }} {{ a|max }} {{ a|min }} {{ a|sum }} {{ people|sum(attribute='zz') if false else 0 }}", "{{ n|default('x') }} {{ zz|default('x') }} {{ ''|default('x', true) }} {{ zz|d }}|", "{{ 'a,b,,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a-b-c'.split('-', 1) }} {{ ' a b c '.split(none, 1) }} {{ d.items()|first }}",
    "{{ 'xaxbx'.replace('x','--') }} {{ 'aaa'|replace('a','b',2) }} {{ 'abc'.replace('', '.') }}", "{{ s.strip() }}|{{ s.lstrip() }}|{{ s.rstrip() }}|{{ 'xxhixx'.strip('x') }}|{{ '\\n\\na\\n'.strip('\\n') }}", "{{ 'hello'.startswith('he') }} {{ 'hello'.endswith(('lo','x')) }} {{ 'hello world'.title() }} {{ 'hELLO'.capitalize() }} {{ \"they're bill's\".title() }}",
    "{{ u.upper() }} {{ u|title }} {{ u|length }} {{ u|reverse }} {{ u|list|length }}", "{{ d|tojson }} {{ u|tojson }} {{ u|tojson(ensure_ascii=true) }}", "{{ d|tojson(indent=2) }}", "{{ {'b': 1, 'a': [true, none, 1.0, 1e20, 'q\"\\n']}|tojson(sort_keys=true) }}", "{{ [1,'a',\"it's\",none,1.0,{'k':[]}] }} {{ (1, 2)|list }} {{ 1e16 }} {{ 0.1 + 0.2 }} {{ 1e-7 }}",
    "{% for x in a %}{{ loop.index }}/{{ loop.length }}:{{ x }}{{ ',' if not loop.last }}{% endfor %}", "{% for x in e %}x{% else %}none{% endfor %}", "{% for k, v in d.items() if k != 'b' %}{{ k }}={{ v }};{% endfor %}", "{% for x in a %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% if x == 2 %}{% break %}{% endif %}{% endfor %}",
    "{% for n in tree recursive %}({{ n.v }}{{ loop.depth }}{{ loop(n.kids) if n.kids }}){% endfor %}", "{% for x in a %}{{ loop.previtem }}<{{ x }}<{{ loop.nextitem }} {{ loop.revindex }}{{ loop.first }} {{ loop.cycle('o','e') }} {{ loop.changed(x > 1) }};{% endfor %}", "{% set x = 1 %}{% for i in a %}{% set x = x + i %}{% endfor %}{{ x }}{% set ns = namespace(x=1) %}{% for i in a %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}",
    "{% macro m(a, b='B', c=a) %}[{{ a }}{{ b }}{{ c }}{{ varargs }}{{ kwargs }}]{% endmacro %}{{ m(1) }}{{ m(1, 2, 3, 4, z=5) }}{{ m(b=1, a=0) }}", "{% macro w(t) %}<{{ t }}>{{ caller() }}</{{ t }}>{% endmacro %}{% call w('b') %}in {{ i }}{% endcall %}{% macro each(l) %}{% for x in l %}{{ caller(x) }}{% endfor %}{% endmacro %}{% call(v) each(a) %}{{ v * 2 }};{% endcall %}",
    "{% set x %}  block {{ i }}{% endset %}[{{ x }}]{% set y | upper | trim %} hi {% endset %}[{{ y }}]", "{% filter upper %}a{{ s }}{% endfilter %}", "{% set a, b = [1, 2] %}{{ a }}{{ b }}{% set t = 1, 2 %}{{ t|list }} {{ (1,) }} {{ () }} {{ (1, 2) == (1, 2) }}", "a\n  {% if t %}\n  b\n  {% endif %}\nc {% if t %} d {% endif %} e\n", "x {#- c -#}  y {# c #}\nz {%+ if t %}k{% endif +%}\nl{{- 1 -}}  m",
    "{{ range(3)|list }}{{ range(5, 0, -2)|list }}{{ dict(a=1, b=[]) }}{% set j = joiner('; ') %}{{ j() }}a{{ j() }}b", "{{ 'a b c'|truncate(4, true, '~', 0) }} {{ 'hello big world'|truncate(11, false, '...', 0) }} {{ 'short'|truncate(9) }}", "{{ 'one\ntwo\n\nthree'|indent }}|{{ 'a\nb'|indent(2, true) }}", "{{ ['b','A','a',1 ]|list|length }} {{ ['b','A','a']|unique|list }} {{ [3,1,3]|unique|list }}",
    "{{ 5 is odd }} {{ 4 is even }} {{ 6 is divisibleby 3 }} {{ 1 is number }} {{ 1.0 is float }} {{ 1 is integer }} {{ t is boolean }} {{ t is true }} {{ d is mapping }} {{ a is sequence }} {{ s is string }} {{ a is iterable }} {{ i is iterable }} {{ 'ab' is lower }} {{ 'AB' is upper }} {{ n is sameas none }} {{ 3 is in a }} {{ 3 is ge 3 }} {{ range is callable }} {{ 1 is not none }}",
    "{{ a|map('string')|join }} {{ ['a','b']|map('upper')|list }} {{ people|map(attribute='age', default=0)|list }}", "{{ [1,2,3,4,5]|slice(2)|list }} {{ 'abc'|list }}{{ 'x' * 3 }}{{ [1] * 2 }}{{ [1] + [2] }}", "{{ '\\t\\x41\\u00e9\\\\' }}{{ 'a' 'b' }}", "{% generation %}g{{ i }}{% endgeneration %}", "{{ a.index(1) }} {{ 'banana'.count('an') }} {{ 'banana'.find('n') }} {{ ','.join(['x','y']) }} {{ '12'.isdigit() }}",
    "{{ zz.x }}", "{{ 1 + 'a' }}", "{{ zz() }}", "{{ 1 / 0 }}", "{{ raise_exception('no ' ~ i) }}", "{% for x in 5 %}{% endfor %}", "{{ a.append(1) }}", "{{ ''.__class__.__mro__ }}", "{{ d.__init__ }}|", "{{ 'a' < 1 }}",
]
cases = [(t, v) for t in (chatml, headers, alternating, turns) for v in (talk, tools, calls)] + [(t, plain) for t in lines]


def c_string(s):
    out = "".join(chr(b) if 32 <= b < 127 and b not in b'"\\?' else "\\%03o" % b for b in s.encode())
    return '"' + out + '"'


print("/* Made by jinja_truth.py: templates, data, and what Jinja makes of them (NULL: an error). */")
print("static const struct {\n\tconst char *template, *data, *want;\n} jinja_cases[] = {")
for template, data in cases:
    try:
        want = c_string(env.from_string(template).render(**data))
    except Exception as e:
        want = "NULL"
    print("\t{%s,\n\t %s,\n\t %s}," % (c_string(template), c_string(json.dumps(data, ensure_ascii=False)), want))
print("};")
