"""What decides: classical laws, the interpreter, the policy and its supervisor."""
