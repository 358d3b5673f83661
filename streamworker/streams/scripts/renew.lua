-- Renew the leases of entries that are still ours; a renewal without the check would take them back from their new owner.
-- KEYS: the stream, and where we remove its entries ourselves, the memory of what was trimmed while it was pending.
-- ARGV: group, consumer, 1 when it is a retry stream of ours, then entry id and turn of each.
-- Answers the ids that are ours no longer, and those that are ours and were trimmed away.
local source, group, consumer, of_retry = KEYS[1], ARGV[1], ARGV[2], ARGV[3] == '1'
local lost, trimmed = {}, {}
for position = 4, #ARGV, 2 do
  local id = ARGV[position]
  local pending = redis.call('XPENDING', source, group, id, id, 1)
  if pending[1] and pending[1][2] == consumer and turn_of(pending[1][4]) == tonumber(ARGV[position + 1]) then
    local claimed = redis.call('XCLAIM', source, group, consumer, 0, id, 'JUSTID')
    -- From Redis 7.0 on, the server drops it now from the pending list; nobody will come across it there any more.
    if not claimed[1] then
      trimmed[#trimmed + 1] = id
      if KEYS[2] then witness(KEYS[2], id) end
    end
  elseif pending[1] or of_retry or #redis.call('XRANGE', source, id, id) > 0 or (KEYS[2] and not was_trimmed(KEYS[2], id)) then
    lost[#lost + 1] = id
  end
  -- Else it was trimmed away while it was pending; nobody else can be given it, so it stays with whoever has it in memory.
end
return { lost, trimmed }
