"""A template that loops or grows without end is stopped, and what published ones do is not."""

from __future__ import annotations

import sys
from datetime import datetime

import pytest

from everwarm.errors import EngineError, RequestError
from everwarm.text.template import ChatTemplate
from everwarm.text.template_bounds import RenderLimits

LIMITS = RenderLimits(seconds=0.3, size=100_000, total=1_000_000)
ENDLESS = {
    "loops in loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}"
    "{% endfor %}",
    "a macro that calls itself": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}"
    "{% endmacro %}{{ m(90) }}",
    "a call block": "{% macro m() %}{% for a in range(99999) %}{{ caller() }}{% endfor %}"
    "{% endmacro %}{% call m() %}{% for b in range(99999) %}{% endfor %}{% endcall %}",
}
HUGE = {
    "times": "{{ 'x' * 10**12 }}",
    "a constant": "{{ 'x' * 1000000000000 }}",
    "a list": "{{ [0] * 10**12 }}",
    "a power": "{{ 10 ** (10 ** 10) }}",
    "numbers": "{% set ns = namespace(n=10) %}{% for i in range(60) %}{% set ns.n = ns.n * ns.n %}"
    "{% endfor %}",
    "doubled by ~": "{% set ns = namespace(t='x') %}{% for i in range(60) %}"
    "{% set ns.t = ns.t ~ ns.t %}{% endfor %}",
    "doubled by +": "{% set ns = namespace(t='x') %}{% for i in range(60) %}"
    "{% set ns.t = ns.t + ns.t %}{% endfor %}",
    "doubled by a block": "{% set ns = namespace(t='x') %}{% for i in range(60) %}"
    "{% set t %}{{ ns.t }}{{ ns.t }}{% endset %}{% set ns.t = t %}{% endfor %}",
    "extended": "{% set l = [1] %}{% for i in range(60) %}{% set _ = l.extend(l) %}{% endfor %}",
    "written": "{% set t = 'x' * 9999 %}{% for i in range(9999) %}{{ t }}{% endfor %}",
    "joined": "{{ ('x' * 9999).join('y' * 9999) }}",
    "joined by a filter": "{{ ('y' * 9999) | map('upper') | join('x' * 9999) }}",
    "replaced": "{{ ('y' * 9999).replace('y', 'x' * 9999) }}",
    "replaced by a filter": "{{ ('y' * 9999) | replace('y', 'x' * 9999) }}",
    "centred": "{{ 'x'.center(10**12) }}",
    "centred by a filter": "{{ 'x' | center(1000000000000) }}",
    "indented": "{{ ('x\n' * 9999) | indent(9999) }}",
    "wrapped": "{{ ('x ' * 9999) | wordwrap(1, wrapstring='y' * 9999) }}",
    "formatted": "{{ '%1000000000000d' % 1 }}",
    "formatted by a filter": "{{ '%1000000000000d' | format(1) }}",
    "formatted by a field": "{{ '{:>1000000000000}'.format(1) }}",
    "batched": "{{ [1] | batch(10**12, 0) | list }}",
    "sliced": "{{ [1] | slice(10**12) | list }}",
}  # fmt: skip


def render(source: str, limits: RenderLimits = LIMITS) -> str:
    template = ChatTemplate(source, {}, limits)
    messages = [{"role": "user", "content": "hello"}]
    return template.render(messages, None, scaffold=True, args={}, now=datetime(2001, 2, 3))


@pytest.mark.parametrize("source", ENDLESS.values(), ids=ENDLESS.keys())
def test_a_template_that_does_not_end_is_stopped(source: str) -> None:
    with pytest.raises(EngineError, match=r"did not end within 0.3 seconds\. Replace it"):
        render(source)


@pytest.mark.parametrize("source", HUGE.values(), ids=HUGE.keys())
def test_what_is_too_large_is_stopped_before_it_is_made(source: str) -> None:
    with pytest.raises(EngineError, match="makes more than 100,000 characters"):
        render(source)


def test_a_template_goes_on_after_one_that_was_stopped() -> None:
    template = ChatTemplate(
        "{% for i in range(n) %}{% for j in range(n) %}{% endfor %}{% endfor %}{{ n }}", {}, LIMITS
    )
    for n, works in ((99_999, False), (3, True)):
        if works:
            assert _rendered(template, n) == "3"
        else:
            with pytest.raises(EngineError):
                _rendered(template, n)


def _rendered(template: ChatTemplate, n: int) -> str:
    return template.render([], None, scaffold=True, args={"n": n}, now=datetime(2001, 2, 3))


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ 'ab' * 3 }}{{ 2 * 3 }}{{ 2 ** 8 }}", "ababab6256"),
        ("{{ 'a' ~ 1 ~ none ~ 'b' }}", "a1Noneb"),
        ("{{ [1] + [2] }}{{ 'a' + 'b' }}{{ 1 + 2 }}", "[1, 2]ab3"),
        ("{{ '%05d' % 7 }}{{ '%s-%s' | format(1, 'x') }}", "000071-x"),
        ("{{ '{:>4}'.format('x') }}{{ ', '.join(['a', 'b']) }}", "   xa, b"),
        ("{{ ['a', 'b'] | map('upper') | join('-') }}", "A-B"),
        ("{{ 'a-b'.replace('-', '+') }}{{ 'a-b' | replace('-', '+') }}", "a+ba+b"),
        ("{{ 'x\ny' | indent(2) }}", "x\n  y"),
        ("{% macro m(a) %}<{{ a }}>{% endmacro %}{{ m('x') }}", "<x>"),
        ("{% for a in 'abc' if a != 'b' %}{{ loop.index }}{{ a }}{% else %}-{% endfor %}", "1a2c"),
        ("{% for a in [1, [2, [3]]] recursive %}{{ loop(a) if a is iterable else a }}{% endfor %}",
         "123"),
        ("{% for a in [1, 2] %}{% if loop.last %}{{ loop.length }}{% endif %}{% endfor %}", "2"),
    ],
)  # fmt: skip
def test_what_templates_do_gives_what_jinja_gives(source: str, text: str) -> None:
    assert render(source) == text


@pytest.mark.parametrize(
    "source", ["{{ 1 / 0 }}", "{{ range(10**12) }}", "{{ [].pop() }}", "{{ 'a'.nothing() }}"]
)
def test_what_a_template_does_wrong_is_a_refusal(source: str) -> None:
    with pytest.raises(RequestError, match="refuses these messages"):
        render(source)


def test_the_limits_of_a_server_leave_room_for_long_conversations() -> None:
    source = (
        "{% set ns = namespace(t='') %}{% for m in messages %}"
        "{% set ns.t = ns.t ~ m.content %}{% endfor %}{{ ns.t }}"
    )
    template = ChatTemplate(source, {})
    messages = [{"role": "user", "content": "x" * 1000}] * 1000
    text = template.render(messages, None, scaffold=True, args={}, now=datetime(2001, 2, 3))
    assert len(text) == 1_000_000
    assert sys.getsizeof(text) < RenderLimits().size
