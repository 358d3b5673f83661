-- Acknowledge entries of a retry stream and remove them: they are ours alone, and nobody needs them afterwards.
-- KEYS: the retry stream. ARGV: group, entry id … Answers how many were still pending.
-- Not fenced: a late finisher's acknowledgement only prevents a third run.
local acked = redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, 2))
redis.call('XDEL', KEYS[1], unpack(ARGV, 2))
return acked
