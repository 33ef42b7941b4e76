"""Everything of the cache that outlives the process. `tier.DiskTier` is its door."""
