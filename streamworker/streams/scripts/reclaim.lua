-- Take over entries whose lease ran out.
-- KEYS: the stream. ARGV: group, consumer, lease in ms, cursor, how many at most, the latest server time in ms at which to do so.
-- Answers: the server's time in ms, 1 when that is too late, next cursor, {id, values, delivery count} of each entry, ids that were
-- trimmed away while they were pending.
local group, consumer = ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- The clock has jumped, or this command has waited in a server that stood still: the idle times tell nothing about who is alive.
if now > tonumber(ARGV[6]) then return { now, 1, ARGV[4], {}, {} } end

local reply = redis.call('XAUTOCLAIM', KEYS[1], group, consumer, ARGV[3], ARGV[4], 'COUNT', ARGV[5])
local entries, gone = {}, reply[3] or {}
local nameless = false
for _, entry in ipairs(reply[2]) do
  -- Before Redis 7.0 a trimmed entry comes as nil, without its id.
  if entry and entry[1] then
    local id = entry[1]
    local pending = redis.call('XPENDING', KEYS[1], group, id, id, 1)
    local count = pending[1] and pending[1][4] or 2
    -- An odd count says that the entry may be running, an even one that it waits to be run alone. XAUTOCLAIM has added one: to an odd
    -- count, and a crash is counted; or to an even one, and that must be undone, because a worker died beside it, not of it. Whatever
    -- was reclaimed is run alone, so no count is below 2.
    if count % 2 == 1 then
      count = math.max(2, count - 1)
      redis.call('XCLAIM', KEYS[1], group, consumer, 0, id, 'RETRYCOUNT', count, 'JUSTID')
    end
    entries[#entries + 1] = { id, entry[2], count }
  else
    nameless = true
  end
end
if nameless then
  for _, pending in ipairs(redis.call('XPENDING', KEYS[1], group, '-', '+', 1000, consumer)) do
    if #redis.call('XRANGE', KEYS[1], pending[1], pending[1]) == 0 then
      redis.call('XACK', KEYS[1], group, pending[1])
      gone[#gone + 1] = pending[1]
    end
  end
end
return { now, 0, reply[1], entries, gone }
