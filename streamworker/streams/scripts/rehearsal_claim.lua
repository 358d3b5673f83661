-- Take an empty database for a test, or one that a test has left behind.
-- KEYS: the claim, the time of the test. ARGV: ms after which a claim counts as left behind. Answers 1, or 0 when somebody uses it.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local claimed_at = tonumber(redis.call('GET', KEYS[1]) or '')
if redis.call('DBSIZE') > 0 and not (claimed_at and now - claimed_at > tonumber(ARGV[1])) then return 0 end
redis.call('FLUSHDB')
redis.call('SET', KEYS[1], now)
redis.call('SET', KEYS[2], now)
return 1
