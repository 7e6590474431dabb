"""
What an operator watches: numbers of every room, for Prometheus.

In: the plain counts of the other rooms, once a second. Out: the text of `/metrics`.
Nothing is counted here on the way of a message, and no client chooses a label.
"""
