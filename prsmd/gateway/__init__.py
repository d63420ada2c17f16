"""The data path: pools, queues and the ledger in memory, and the exchange with containers."""
