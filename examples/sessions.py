"""One question, two answers: hold a session, branch it, and compare the branches.

everwarm serve &
python examples/sessions.py [URL]
"""

import json
import sys
import urllib.request

URL = (sys.argv[1:] or ["http://127.0.0.1:8642"])[0]


def ask(method, path, body=None):
    request = urllib.request.Request(URL + path, json.dumps(body or {}).encode(), method=method)
    with urllib.request.urlopen(request) as answer:
        text = answer.read().decode()
    if "event-stream" not in answer.headers["content-type"]:
        return json.loads(text)
    name, data = text.strip().split("\n\n")[-1].split("\n")  # a turn ends with done, or error
    assert name == "event: done", data
    return json.loads(data.removeprefix("data: "))["message"]


def say(session, text):  # only what is new is sent; the server has the rest
    reply = ask("POST", f"/api/sessions/{session}/send", {"text": text})
    turn = reply["turn"]
    print(f"  {turn['cached_tokens']} tokens were warm, {turn['prefilled_tokens']} were read")
    return reply


settings = {"system": "You are a travel guide.", "max_tokens": 60}
session = ask("POST", "/api/sessions", {"title": "A trip", "settings": settings})["id"]
start = say(session, "I have one free day in Lisbon.")
said = {}
for branch, wish in {"food": "I like to eat.", "art": "I like museums."}.items():
    ask("POST", f"/api/sessions/{session}/branches", {"at": start["id"], "name": branch})
    said[branch] = say(session, wish + " What should I do?")["text"]
print("".join(f"\n{branch}: {text.strip()}\n" for branch, text in said.items()))
ask("DELETE", f"/api/sessions/{session}")
