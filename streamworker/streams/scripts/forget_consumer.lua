-- Remove a consumer that has nothing pending: XGROUP DELCONSUMER by itself would drop its pending entries for good.
-- KEYS: the stream. ARGV: group, consumer. Answers 1 when removed.
if redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2])[1] then return 0 end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
