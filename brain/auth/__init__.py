"""
A token in, an identity and its rights out.

In: tokens, settings, revocations from the log. Out: who a client is, what it may read and publish.
Deny by default: `policy.Authority.read_access` is the one place where reading is decided.
"""
