-- Take over entries whose lease ran out.
-- KEYS: the stream. ARGV: group, consumer, lease in ms, cursor, how many at most, the latest server time in ms at which to do so, how
-- many pending entries to look at.
-- Answers: the server's time in ms, 1 when that is too late, next cursor, {id, values, delivery count} of each entry, ids that were
-- trimmed away while they were pending.
local group, consumer = ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- The clock has jumped, or this command has waited in a server that stood still: the idle times tell nothing about who is alive.
if now > tonumber(ARGV[6]) then return { now, 1, ARGV[4], {}, {} } end

-- What is pending under our own name is no dead worker's: we could not renew it, or never saw it, and nobody has crashed with it.
local own = {}
local idle = math.max(0, tonumber(ARGV[3]) - 10)
for _, pending in ipairs(redis.call('XPENDING', KEYS[1], group, 'IDLE', idle, ARGV[4], '+', 1000, consumer)) do
  own[pending[1]] = pending[4]
end

-- XAUTOCLAIM looks at ten entries for each that it may take: where little is wanted, that is too short a step.
local reply, cursor, looked_at = nil, ARGV[4], 0
repeat
  reply = redis.call('XAUTOCLAIM', KEYS[1], group, consumer, ARGV[3], cursor, 'COUNT', ARGV[5])
  cursor, looked_at = reply[1], looked_at + 10 * ARGV[5]
until cursor == '0-0' or #reply[2] > 0 or #(reply[3] or {}) > 0 or looked_at >= tonumber(ARGV[7])
local entries, gone = {}, reply[3] or {}
local nameless = false
for _, entry in ipairs(reply[2]) do
  -- Before Redis 7.0 a trimmed entry comes as nil, without its id.
  if entry and entry[1] then
    local id = entry[1]
    local pending = redis.call('XPENDING', KEYS[1], group, id, id, 1)
    local counted = pending[1] and pending[1][4] or 2
    -- XAUTOCLAIM has added one. Whatever is reclaimed from a dead worker has an even turn now, so it is run alone.
    local count = after_a_death(counted - 1)
    if own[id] then count = own[id] end
    if count ~= counted then redis.call('XCLAIM', KEYS[1], group, consumer, 0, id, 'RETRYCOUNT', count, 'JUSTID') end
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
