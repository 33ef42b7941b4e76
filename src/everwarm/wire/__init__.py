"""Client APIs on one side, `Request` and events on the other. Knows no engine, serves no HTTP."""
