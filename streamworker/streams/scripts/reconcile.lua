-- Find entries that are pending under our name but that we do not hold: their reply was lost on the way, or, when we have just begun,
-- an earlier process of this name died with them.
-- KEYS: the stream, and where we remove its entries ourselves, the memory of what was trimmed while it was pending.
-- ARGV: group, consumer, first id to look at, how many pending entries to look at, 1 when their owner is dead, for how many bytes there is
-- room, then the ids that we hold.
-- Answers: next id to look at ('' when done), {id, values, delivery count} of each, ids that were trimmed away, how many were left where
-- they are because the room was full. Without a death the search ends there.
local group, consumer, limit, died, bytes = ARGV[1], ARGV[2], tonumber(ARGV[4]), ARGV[5] == '1', tonumber(ARGV[6])
local held = {}
for position = 7, #ARGV do held[ARGV[position]] = true end
local entries, gone, left = {}, {}, 0

local function weigh(values)
  local sum = 0
  for _, value in ipairs(values) do sum = sum + #value end
  return sum
end

local function note_gone(id)
  gone[#gone + 1] = id
  if KEYS[2] then witness(KEYS[2], id) end
end

local page = redis.call('XPENDING', KEYS[1], group, ARGV[3], '+', limit, consumer)
for _, pending in ipairs(page) do
  local id, count = pending[1], pending[4]
  if not held[id] then
    -- As in reclaim.lua: what may have been running with the dead one waits from now on to be run alone.
    if died then count = after_a_death(count) end
    if bytes > 0 then
      local claimed = redis.call('XCLAIM', KEYS[1], group, consumer, 0, id, 'RETRYCOUNT', count)
      if claimed[1] and claimed[1][1] then
        entries[#entries + 1] = { id, claimed[1][2], count }
        bytes = bytes - weigh(claimed[1][2])
      else
        redis.call('XACK', KEYS[1], group, id)
        note_gone(id)
      end
    else
      left = left + 1
      if not died then return { '', entries, gone, left } end
      -- Later it could not be told any more that it was the dead one's; idle as it was, it is for whoever has room first.
      local claimed = redis.call('XCLAIM', KEYS[1], group, consumer, 0, id, 'IDLE', pending[3], 'RETRYCOUNT', count, 'JUSTID')
      if not claimed[1] then note_gone(id) end
    end
  end
end
local LARGEST_ID = '18446744073709551615-18446744073709551615' -- nothing can be asked for behind it
local following = ''
if #page == limit and page[#page][1] ~= LARGEST_ID then following = '(' .. page[#page][1] end
return { following, entries, gone, left }
