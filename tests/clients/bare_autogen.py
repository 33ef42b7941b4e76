"""AutoGen with an address and a key: its assistant with a tool, streamed and whole, and a team.

Run by bare.py, which dictates what the model says; raises AssertionError where AutoGen gets
anything else. AutoGen sends a `name` with every message of a user or an agent.
"""

from __future__ import annotations

import asyncio

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_core.models import ModelInfo
from autogen_ext.models.openai import OpenAIChatCompletionClient

# AutoGen asks for this of every model that is not one of OpenAI's.
INFO = ModelInfo(
    vision=False, function_calling=True, json_output=True, family="unknown", structured_output=True
)
looked: list[str] = []


async def look(bed: str) -> str:
    """Looks at a bed."""
    looked.append(bed)
    return f"{bed} is dry."


def client() -> OpenAIChatCompletionClient:
    """The address and the key are in AutoGen's own variables."""
    return OpenAIChatCompletionClient(model="default", model_info=INFO)


async def loop(name: str, *, stream: bool) -> None:
    """Three steps with tools, two of them at once, and a second message with one more."""
    looked.clear()
    agent = AssistantAgent(
        name,
        model_client=client(),
        tools=[look],
        system_message=f"You are the {name}.",
        model_client_stream=stream,
        max_tool_iterations=5,
    )
    first = await agent.run(task="How are the beds?")
    assert first.messages[-1].content == "All dry.", first
    assert sorted(looked) == ["east", "north", "west"], looked
    second = await agent.run(task="And the south one?")
    assert second.messages[-1].content == "As I said.", second
    assert looked[3:] == ["south"], looked


async def team() -> None:
    """Two agents in turn: what the other said comes as a user's message with its name."""
    agents = [
        AssistantAgent(n, model_client=client(), tools=[look], system_message=f"You are the {n}.")
        for n in ("gardener", "owner")
    ]
    chat = RoundRobinGroupChat(agents, termination_condition=MaxMessageTermination(5))
    result = await chat.run(task="Talk about the beds.")
    said = [(m.source, m.content) for m in result.messages]
    assert said[1:] == [
        ("gardener", "They are dry."),
        ("owner", "Water them."),
        ("gardener", "I will."),
        ("owner", "Good."),
    ], said


async def main() -> None:
    await loop("streamer", stream=True)
    await loop("writer", stream=False)
    await team()


asyncio.run(main())
