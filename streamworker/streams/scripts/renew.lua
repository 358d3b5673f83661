-- Renew the leases of entries that are still ours; a renewal without the check would take them back from their new owner.
-- KEYS: the stream. ARGV: group, consumer, then entry id and delivery count of each.
-- Answers the ids that are ours no longer.
local lost = {}
for position = 3, #ARGV, 2 do
  local id = ARGV[position]
  local pending = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1, ARGV[2])
  if pending[1] and pending[1][4] == tonumber(ARGV[position + 1]) then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id, 'JUSTID')
  else
    lost[#lost + 1] = id
  end
end
return lost
