"""`everwarm chat`: a conversation in the terminal, with what each turn cost."""

from __future__ import annotations

from rich.console import Console

from everwarm.cli.client import Client, Json, Reply


def talk(url: str, api_key: str | None, *, system: str | None, max_tokens: int) -> None:
    """Read a line, stream the answer, say what it cost; until end of input or `/quit`."""
    console = Console(highlight=False)
    client = Client(url, api_key)
    model = client.model()
    messages: list[Json] = [{"role": "system", "content": system}] if system else []
    console.print(f"{model} at {url}. /quit or Ctrl-D ends.", style="dim", markup=False)
    try:
        while (line := _ask()) is not None:
            if not line:
                continue
            messages.append({"role": "user", "content": line})
            reply = client.chat(messages, show=_write, model=model, max_tokens=max_tokens)
            messages.append({"role": "assistant", "content": reply.text})
            console.print("\n" + cost(reply), style="dim", markup=False)
    except KeyboardInterrupt:
        console.print()
    finally:
        client.close()


def cost(reply: Reply) -> str:
    """What a turn cost, on one line."""
    return (
        f"TTFT {reply.ttft_s * 1000:,.0f} ms, {reply.cached_tokens:,} cached, "
        f"{reply.prefilled_tokens:,} new, {reply.completion_tokens:,} written"
    )


def _ask() -> str | None:
    try:
        line = input("> ").strip()
    except EOFError:
        return None
    return None if line in ("/quit", "/exit") else line


def _write(text: str) -> None:
    print(text, end="", flush=True)
