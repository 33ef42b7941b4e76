"""Client APIs on one side, `Request` and events on the other. Knows no engine and no HTTP server."""
