-- What every settling script starts with. KEYS[1]: the stream the entry is pending in. KEYS[2], for those that write what takes memory:
-- the group's sorted set of due times.
-- ARGV: group, consumer, entry id, delivery count, 1 when the stream is a retry stream of ours.
local source, group, consumer, id, count, of_retry = KEYS[1], ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5] == '1'

-- A full server refuses only the first write of a script, and that is the next one, which it takes. So try one that it would refuse, and
-- that changes nothing.
if KEYS[2] then
  local tried = redis.pcall('ZADD', KEYS[2], 'XX', 0, '')
  if type(tried) == 'table' and tried['err'] and string.find(tostring(tried['err']), 'OOM', 1, true) then return tried end
end

-- Acknowledging comes last, when other things are written already, so it must not be refused then: try the right to it on no entry.
redis.call('XACK', source, group, '0-0')
if of_retry then redis.call('XDEL', source, '0-0') end

-- Nobody has the entry pending, and it is not in the stream any more: it was trimmed away while it was pending, and the server has
-- dropped it from the pending list. No other worker can ever be given it, so the one that still has it in memory must be let go on.
-- Entries of a retry stream vanish when they are settled, so there it means just that.
local function trimmed_away()
  return not of_retry and #redis.call('XPENDING', source, group, id, id, 1) == 0 and #redis.call('XRANGE', source, id, id) == 0
end

-- The entry is pending with us under this delivery count: nobody has taken it over.
local function ours()
  local pending = redis.call('XPENDING', source, group, id, id, 1, consumer)
  if pending[1] then return pending[1][4] == count end
  return trimmed_away()
end

-- The entry is pending, with whomever: nobody has settled it.
local function unsettled()
  return #redis.call('XPENDING', source, group, id, id, 1) == 1 or trimmed_away()
end

local function acknowledge()
  redis.call('XACK', source, group, id)
  if of_retry then redis.call('XDEL', source, id) end
end
