"""Remote key sets: where they are, how they are reached, when they are fetched, and what is kept of them.

Nothing here is on the way of a Check call: a request reads one attribute of a `source.RemoteKeySet`, and everything
else happens in the thread of a `fetcher.KeySetFetcher`.
"""
