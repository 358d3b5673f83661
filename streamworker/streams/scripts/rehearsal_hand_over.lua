-- Let a pending entry be another consumer's, as if it had been delivered to that one, and have been idle for so long.
-- KEYS: the stream. ARGV: group, entry id, the other consumer, idle ms. Answers 1, or 0 when it is not pending.
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[2], ARGV[2], 1)[1]
if not pending then return 0 end
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[3], 0, ARGV[2], 'IDLE', ARGV[4], 'RETRYCOUNT', pending[4], 'JUSTID')
return 1
