"""The HTTP side: routes, guard, the straight line of a turn."""
