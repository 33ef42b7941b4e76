"""What an engine said before it died is not lost among the stacks that Python writes then."""

from __future__ import annotations

import os
import subprocess
import sys

from everwarm.supervisor.last_words import LINES, LastWords

DIES = """
import faulthandler, os, threading, time
faulthandler.enable()
def deep(n):
    time.sleep(60) if not n else deep(n - 1)
for _ in range(5):
    threading.Thread(target=deep, args=(20,), daemon=True).start()
for n in range(50):
    os.write(2, b"line %d\\n" % n)
os.write(2, b"Insufficient Memory\\n")
def faulty_function():
    os.abort()
faulty_function()
"""


def test_the_reason_in_front_of_a_fault_is_remembered() -> None:
    ours, theirs = os.pipe()
    child = subprocess.Popen([sys.executable, "-c", DIES], stderr=theirs)
    os.close(theirs)
    words = LastWords(ours)
    child.wait(60)
    lines = words.text(10).splitlines()
    assert len(lines) <= LINES
    assert "Insufficient Memory" in lines and "Fatal Python error: Aborted" in lines
    assert any("faulty_function" in line for line in lines)
    assert not any("deep" in line for line in lines)
