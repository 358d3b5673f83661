-- Move retries that are due to the retry stream, where any reader of the group picks them up.
-- KEYS: the sorted set of due times, the hash of parked envelopes, the retry stream. ARGV: how many at most.
-- Answers: how many moved, how many had lost their envelope, ms until the next one is due (-1: none waits).
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local moved, hollow = 0, 0
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])) do
  local envelope = redis.call('HGET', KEYS[2], id)
  if envelope then
    redis.call('XADD', KEYS[3], '*', 'delivery', envelope)
    redis.call('HDEL', KEYS[2], id)
    moved = moved + 1
  else
    hollow = hollow + 1
  end
  redis.call('ZREM', KEYS[1], id)
end
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
local wait = -1
if first[2] then wait = math.max(0, tonumber(first[2]) - now) end
return { moved, hollow, wait }
