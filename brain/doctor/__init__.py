"""
Answers "why do I hear nothing?": checks a database, a running Brain, a token, and the way between.

In comes what to examine, out go findings, each with a verdict and the way out. Nothing is changed
but one test event in the log, and nothing that is secret is put into a finding.
"""
