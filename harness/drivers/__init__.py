"""One module a noun of the cluster, and what can be asked of it."""
