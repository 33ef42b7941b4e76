"""The way between the server and an engine process: framed plain values over a socket pair."""
