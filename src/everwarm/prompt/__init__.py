"""Messages to tokens and tokens to events. Not here: any wire format, the model, the cache."""
