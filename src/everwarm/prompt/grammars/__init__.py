"""What a reply is held to, as grammars in the notation that llguidance compiles."""
