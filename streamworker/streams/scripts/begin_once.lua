-- Find out whether what an entry asks for was done before, and claim it where it was not.
-- KEYS: the marker, the stream, its retry stream. ARGV: group, which of the two streams the entry lies in (2 or 3), its id, how long the
-- claim is kept, in ms.
-- Answers 'done', 'busy' while another entry with the same marker is pending with anybody, or 'begun'.
-- A marker is 'done', or the claim of the entry that is being handled. A claim needs no renewal: it holds for as long as that entry is
-- pending; once it is not, without the marker being 'done', it has failed, and the next one may try.
local marker, group, claim = KEYS[1], ARGV[1], ARGV[2] .. ' ' .. ARGV[3]

local found = redis.call('GET', marker)
if found == 'done' then return 'done' end
if found and found ~= claim then
  local place, id = string.match(found, '^([23]) (%d+%-%d+)$')
  if id then
    local pending = redis.pcall('XPENDING', KEYS[tonumber(place)], group, id, id, 1)
    if pending[1] then return 'busy' end
  end
end
if found ~= claim then redis.call('SET', marker, claim, 'PX', ARGV[4]) end
return 'begun'
