"""LangChain with an address and a key: an agent that has a name, over chat and over responses.

Run by bare.py, which dictates what the model says; raises AssertionError where LangChain gets
anything else. A named agent's replies go back with its `name`.
"""

from __future__ import annotations

from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

looked: list[str] = []


@tool
def look(bed: str) -> str:
    """Looks at a bed."""
    looked.append(bed)
    return f"{bed} is dry."


def ask(agent: Any, messages: list[Any], *, stream: bool) -> list[Any]:
    """All messages after the agent's turn."""
    if not stream:
        return list(agent.invoke({"messages": messages})["messages"])
    state: dict[str, Any] = {}
    for mode, part in agent.stream({"messages": messages}, stream_mode=["messages", "values"]):
        state = part if mode == "values" else state
    return list(state["messages"])


def loop(name: str, *, stream: bool, responses: bool) -> None:
    """Three steps with tools, two of them at once, and a second message with one more."""
    looked.clear()
    model = ChatOpenAI(model="default", use_responses_api=responses)
    agent = create_agent(model, [look], system_prompt=f"You are the {name}.", name=name)
    messages = ask(agent, [HumanMessage("How are the beds?", name="owner")], stream=stream)
    assert messages[-1].text == "All dry." and messages[-1].name == name, messages
    assert sorted(looked) == ["east", "north", "west"], looked
    sure = HumanMessage("And the south one?", name="owner")
    messages = ask(agent, [*messages, sure], stream=stream)
    assert messages[-1].text == "As I said.", messages
    assert looked[3:] == ["south"], looked


loop("streamer", stream=True, responses=False)
loop("writer", stream=False, responses=False)
loop("responder", stream=True, responses=True)
