-- What every settling script starts with. KEYS: the stream the entry is pending in, the group's memory of what it has settled, then
-- those that the script writes to beside.
-- ARGV: group, consumer, entry id, turn (see book.lua), what becomes of the stream's entries: 0 they stay, 1 it is a retry stream of ours,
-- 2 workers trim it, 3 workers delete what every group has acknowledged, too.
local source, settled = KEYS[1], KEYS[2]
local group, consumer, id, turn, of_retry = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5] == '1'
local shrinks = tonumber(ARGV[5]) >= 2

-- A full server refuses only the first write of a script, and that is the next one, which it takes. So try one that it would refuse, and
-- that changes nothing, where something is to be written that takes memory.
if KEYS[3] then
  local tried = redis.pcall('ZADD', settled, 'XX', 0, '')
  if type(tried) == 'table' and tried['err'] and string.find(tostring(tried['err']), 'OOM', 1, true) then return tried end
end

-- Acknowledging comes last, when other things are written already, so it must not be refused then: try the right to it on no entry.
redis.call('XACK', source, group, '0-0')
if of_retry then redis.call('XDEL', source, '0-0') end

-- How many of the entries settled last are remembered, and for how long after the last of them.
local REMEMBERED, DAY_MS = 10000, 86400000

-- The memory is a help, and must hold up no settlement: whatever keeps it from being read or written is passed over, hence pcall.
local function was_settled()
  return type(redis.pcall('ZSCORE', settled, id)) == 'string'
end

local function remember()
  local time = redis.call('TIME')
  redis.pcall('ZADD', settled, time[1] * 1000 + math.floor(time[2] / 1000), id)
  redis.pcall('ZREMRANGEBYRANK', settled, 0, -1 - REMEMBERED)
  redis.pcall('PEXPIRE', settled, DAY_MS)
end

-- Nobody has the entry pending, and it is not in the stream any more, and nobody is known to have settled it: it was trimmed away while
-- it was pending, and the server has dropped it from the pending list. No other worker can ever be given it, so the one that still has
-- it in memory must be let go on. Entries of a retry stream vanish when they are settled, so there it means just that; and where we remove
-- what is settled ourselves, it means that unless whoever dropped it from the pending list has witnessed it.
local function trimmed_away()
  if of_retry or #redis.call('XPENDING', source, group, id, id, 1) > 0 then return false end
  if #redis.call('XRANGE', source, id, id) > 0 or was_settled() then return false end
  return not shrinks or was_trimmed(settled, id)
end

-- The entry is pending with us under this turn: nobody has taken it over.
local function ours()
  local pending = redis.call('XPENDING', source, group, id, id, 1, consumer)
  if pending[1] then return turn_of(pending[1][4]) == turn end
  return trimmed_away()
end

-- The entry is pending, with whomever: nobody has settled it.
local function unsettled()
  return #redis.call('XPENDING', source, group, id, id, 1) == 1 or trimmed_away()
end

-- The end of a settlement that has written something. Without the memory its repetition, or whoever lost the entry to it, would take
-- an entry that is trimmed afterwards for one that was trimmed before.
local function acknowledge()
  redis.call('XACK', source, group, id)
  if of_retry then redis.call('XDEL', source, id) else remember() end
  if ARGV[5] == '3' then retire(source, group, { id }) end
end
