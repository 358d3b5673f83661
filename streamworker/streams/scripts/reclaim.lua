-- Take over entries whose lease ran out, with their delivery counts, which XAUTOCLAIM does not tell.
-- KEYS: the stream. ARGV: group, consumer, lease in ms, cursor, how many at most.
-- Answers: next cursor, {id, values, delivery count} of each entry, ids that were trimmed away while they were pending.
local reply = redis.call('XAUTOCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], 'COUNT', ARGV[5])
local entries, gone = {}, reply[3] or {}
local nameless = false
for _, entry in ipairs(reply[2]) do
  -- Before Redis 7.0 a trimmed entry comes as nil, without its id.
  if entry and entry[1] then
    local pending = redis.call('XPENDING', KEYS[1], ARGV[1], entry[1], entry[1], 1)
    entries[#entries + 1] = { entry[1], entry[2], pending[1] and pending[1][4] or 1 }
  else
    nameless = true
  end
end
if nameless then
  for _, pending in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1000, ARGV[2])) do
    if #redis.call('XRANGE', KEYS[1], pending[1], pending[1]) == 0 then
      redis.call('XACK', KEYS[1], ARGV[1], pending[1])
      gone[#gone + 1] = pending[1]
    end
  end
end
return { reply[1], entries, gone }
