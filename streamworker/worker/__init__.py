"""The pipeline. Listed, its modules read as the way of a delivery: reader and reclaimer and promoter bring it, lanes say when it may
start, the executor runs it, settlement ends it, leases keep it ours meanwhile; consumer holds them together, process holds consumers.
"""
