-- Renew the leases of entries that are still ours; a renewal without the check would take them back from their new owner.
-- KEYS: the stream. ARGV: group, consumer, 1 when it is a retry stream of ours, then entry id and turn of each.
-- Answers the ids that are ours no longer.
local source, group, consumer, of_retry = KEYS[1], ARGV[1], ARGV[2], ARGV[3] == '1'
local lost = {}
for position = 4, #ARGV, 2 do
  local id = ARGV[position]
  local pending = redis.call('XPENDING', source, group, id, id, 1)
  if pending[1] and pending[1][2] == consumer and turn_of(pending[1][4]) == tonumber(ARGV[position + 1]) then
    redis.call('XCLAIM', source, group, consumer, 0, id, 'JUSTID')
  elseif pending[1] or of_retry or #redis.call('XRANGE', source, id, id) > 0 then
    lost[#lost + 1] = id
  end
  -- Else it was trimmed away while it was pending; nobody else can be given it, so it stays with whoever has it in memory.
end
return lost
