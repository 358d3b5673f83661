-- Put an entry aside until it is due, and acknowledge it.
-- KEYS: the stream it is pending in, the hash of parked envelopes, the sorted set of due times.
-- ARGV: group, consumer, entry id, delivery count, 1 to remove the entry, delay in ms, original id, envelope.
-- Answers 1, or 0 when the entry is not ours any more.
local source, group, consumer, id, count = KEYS[1], ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local pending = redis.call('XPENDING', source, group, id, id, 1, consumer)
if not (pending[1] and pending[1][4] == count) then return 0 end

-- What can be refused (no memory, wrong type, no permission) comes first, the acknowledgement last. The set is looked at before the
-- hash is written: an envelope without a due time would never come back by itself.
local kind = redis.call('TYPE', KEYS[3])['ok']
if kind ~= 'zset' and kind ~= 'none' then
  return redis.error_reply('WRONGTYPE ' .. KEYS[3] .. ' holds a ' .. kind .. ', not a sorted set')
end
local time = redis.call('TIME')
local due = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[6])
redis.call('HSET', KEYS[2], ARGV[7], ARGV[8])
redis.call('ZADD', KEYS[3], due, ARGV[7])
redis.call('XACK', source, group, id)
if ARGV[5] == '1' then redis.call('XDEL', source, id) end
return 1
