-- Put an entry aside until it is due, and acknowledge it.
-- KEYS: the fence's, the hash of parked envelopes, the sorted set of due times. ARGV: the fence's, delay in ms, original id, envelope.
-- Answers 1, or 0 when the entry is not ours any more.
if not ours() then return 0 end

-- What can be refused (no memory, wrong type, no permission) comes first, the acknowledgement last. The set is looked at before the
-- hash is written: an envelope without a due time would never come back by itself.
local kind = redis.call('TYPE', KEYS[4])['ok']
if kind ~= 'zset' and kind ~= 'none' then
  return redis.error_reply('WRONGTYPE ' .. KEYS[4] .. ' holds a ' .. kind .. ', not a sorted set')
end
local time = redis.call('TIME')
local due = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[6])
redis.call('HSET', KEYS[3], ARGV[7], ARGV[8])
redis.call('ZADD', KEYS[4], due, ARGV[7])
acknowledge()
return 1
