-- Put an entry aside that is to be added to its stream later.
-- KEYS: the sorted set of due times, the hash of entries, the marker of its dedupe id if it has one.
-- ARGV: the handle, 'delay' or 'at', ms, window in ms, the head's end, the packed fields. Answers the handle, of this or of the earlier call.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local due = tonumber(ARGV[3])
if ARGV[2] == 'delay' then due = now + due end

if KEYS[3] then
  local earlier = redis.call('GET', KEYS[3])
  if earlier then
    redis.call('SET', KEYS[3], earlier, 'KEEPTTL') -- as in publish_once.lua
    return earlier
  end
end

-- All are looked at before the first write, because an error undoes nothing.
for position, wanted in ipairs({ 'zset', 'hash' }) do
  local kind = redis.call('TYPE', KEYS[position])['ok']
  if kind ~= wanted and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE ' .. KEYS[position] .. ' holds a ' .. kind)
  end
end
-- The due time stands in the entry too, so that it comes back when the set has lost it.
local head = '{"due_ms": ' .. string.format('%.0f', due) .. ', ' .. ARGV[5] .. '\n'
redis.call('HSET', KEYS[2], ARGV[1], head .. ARGV[6])
redis.call('ZADD', KEYS[1], due, ARGV[1])
if KEYS[3] then redis.call('SET', KEYS[3], ARGV[1], 'PX', math.max(0, due - now) + tonumber(ARGV[4])) end
return ARGV[1]
