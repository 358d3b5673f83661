-- Take over entries whose lease ran out.
-- KEYS: the stream, and where we remove its entries ourselves, the memory of what was trimmed while it was pending.
-- ARGV: group, consumer, lease in ms, cursor, how many at most, the latest server time in ms at which to do so, for
--       how many bytes there is room, then the ids that we hold though we have lost them.
-- Answers: the server's time in ms, 1 when that is too late, next cursor, {id, values, delivery count} of each entry, ids that were
-- trimmed away while they were pending.
local group, consumer, most, bytes = ARGV[1], ARGV[2], tonumber(ARGV[5]), tonumber(ARGV[7])
local lost = {}
for position = 8, #ARGV do lost[ARGV[position]] = true end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- The clock has jumped, or this command has waited in a server that stood still: the idle times tell nothing about who is alive.
if now > tonumber(ARGV[6]) then return { now, 1, ARGV[4], {}, {} } end

-- What is pending under our own name is no dead worker's: we could not renew it, or never saw it, and nobody has crashed with it.
local own = {}
local idle = math.max(0, tonumber(ARGV[3]) - 10)
for _, pending in ipairs(redis.call('XPENDING', KEYS[1], group, 'IDLE', idle, ARGV[4], '+', 1000, consumer)) do
  own[pending[1]] = { count = pending[4], idle = pending[3] }
end

local entries, gone, cursor = {}, {}, ARGV[4]
local nameless = false

local function weigh(values)
  local sum = 0
  for _, value in ipairs(values) do sum = sum + #value end
  return sum
end

local function take(entry)
  local id = entry[1]
  local pending = redis.call('XPENDING', KEYS[1], group, id, id, 1)
  if own[id] and lost[id] then
    -- Its handler swallows that it was cancelled: it stays as idle as it was, so that another worker may have it.
    redis.call('XCLAIM', KEYS[1], group, consumer, 0, id, 'IDLE', own[id].idle, 'RETRYCOUNT', own[id].count, 'JUSTID')
    return
  end
  local counted = pending[1] and pending[1][4] or 2
  -- XAUTOCLAIM has added one. Whatever is reclaimed from a dead worker has an even turn now, so it is run alone.
  local count = after_a_death(counted - 1)
  if own[id] then count = own[id].count end
  if count ~= counted then redis.call('XCLAIM', KEYS[1], group, consumer, 0, id, 'RETRYCOUNT', count, 'JUSTID') end
  entries[#entries + 1] = { id, entry[2], count }
  bytes = bytes - weigh(entry[2])
end

-- One by one, because how large an entry is shows only when it is ours; each step looks at ten pending ones at most.
for _ = 1, 50 do
  local reply = redis.call('XAUTOCLAIM', KEYS[1], group, consumer, ARGV[3], cursor, 'COUNT', 1)
  cursor = reply[1]
  for _, entry in ipairs(reply[2]) do
    -- Before Redis 7.0 a trimmed entry comes as nil, without its id.
    if entry and entry[1] then take(entry) else nameless = true end
  end
  for _, id in ipairs(reply[3] or {}) do gone[#gone + 1] = id end
  if cursor == '0-0' or bytes <= 0 or #entries >= most then break end
end
if nameless then
  for _, pending in ipairs(redis.call('XPENDING', KEYS[1], group, '-', '+', 1000, consumer)) do
    if #redis.call('XRANGE', KEYS[1], pending[1], pending[1]) == 0 then
      redis.call('XACK', KEYS[1], group, pending[1])
      gone[#gone + 1] = pending[1]
    end
  end
end
if KEYS[2] then
  for _, id in ipairs(gone) do witness(KEYS[2], id) end
end
return { now, 0, cursor, entries, gone }
