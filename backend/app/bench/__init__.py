"""`gapless bench`: the load client, the profiles that drive it, and the report.

`streams`, `subscriber`, `counting`, `publish`, `posts`, `latency`, `procs` and `calibrate` know nothing of Gapless
but their defaults: they measure any server that speaks HTTP and Server-Sent Events. `target`, `stage`, `tables` and
`messages` know how Gapless is started, filled and written to; each file of `profiles/` is one kind of load.
"""
