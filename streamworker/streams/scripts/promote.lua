-- Move retries that are due to the retry stream, where any reader of the group picks them up.
-- KEYS: the sorted set of due times, the hash of parked envelopes, the retry stream, the stream itself.
-- ARGV: how many at most, where the search for lost due times goes on (0: at the beginning).
-- Answers: how many moved, how many could not be restored, ms until the next one is due (-1: none waits), where the search goes on.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- Somebody has removed the envelope; while the entry itself is there, it begins anew with its first attempt. What is no id of an entry
-- somebody else has put there, and it must not hold up the others.
local function restored(id)
  local found = redis.pcall('XRANGE', KEYS[4], id, id)
  if found['err'] and string.find(tostring(found['err']), 'nvalid stream ID', 1, true) then return nil end
  if found['err'] then found = redis.call('XRANGE', KEYS[4], id, id) end
  local entry = found[1]
  if not entry then return nil end
  local past = '"attempt": 1, "crashes": 0, "crashes_alone": 0, "suspect": false, "misrouted": 0, "first_failed_at": null, "last_error": null'
  local parts = { '{"id": "' .. id .. '", ' .. past .. '}\n' }
  for _, value in ipairs(entry[2]) do parts[#parts + 1] = #value .. ':' .. value end
  return table.concat(parts)
end

-- Somebody has removed due times: an envelope without one would never come back by itself, so it is due now.
local cursor = '0'
if redis.call('HLEN', KEYS[2]) > redis.call('ZCARD', KEYS[1]) then
  local page = redis.call('HSCAN', KEYS[2], ARGV[2], 'COUNT', 200)
  cursor = page[1]
  for position = 1, #page[2], 2 do redis.call('ZADD', KEYS[1], 'NX', now, page[2][position]) end
end

local moved, hollow = 0, 0
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])) do
  local envelope = redis.call('HGET', KEYS[2], id) or restored(id)
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
if cursor ~= '0' then wait = 0 end
return { moved, hollow, wait, cursor }
