"""`gapless bench`: the load client, the profiles that drive it, and the report.

`streams`, `counting`, `publish`, `posts` and `procs` know nothing of Gapless but their defaults: they measure
any server that speaks HTTP and Server-Sent Events.
"""
