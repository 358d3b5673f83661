-- Find entries that are pending under our name but that we do not hold: their reply was lost on the way, or, when we have just begun,
-- an earlier process of this name died with them.
-- KEYS: the stream. ARGV: group, consumer, first id to look at, how many pending entries to look at, 1 when their owner is dead, then
--       the ids that we hold.
-- Answers: next id to look at ('' when done), {id, values, delivery count} of each, ids that were trimmed away.
local group, consumer, limit, died = ARGV[1], ARGV[2], tonumber(ARGV[4]), ARGV[5] == '1'
local held = {}
for position = 6, #ARGV do held[ARGV[position]] = true end
local entries, gone = {}, {}
local page = redis.call('XPENDING', KEYS[1], group, ARGV[3], '+', limit, consumer)
for _, pending in ipairs(page) do
  local id, count = pending[1], pending[4]
  if not held[id] then
    -- As in reclaim.lua: what may have been running with the dead one waits from now on to be run alone.
    if died then count = after_a_death(count) end
    local claimed = redis.call('XCLAIM', KEYS[1], group, consumer, 0, id, 'RETRYCOUNT', count)
    if claimed[1] and claimed[1][1] then
      entries[#entries + 1] = { id, claimed[1][2], count }
    else
      redis.call('XACK', KEYS[1], group, id)
      gone[#gone + 1] = id
    end
  end
end
local following = ''
if #page == limit then following = '(' .. page[#page][1] end
return { following, entries, gone }
