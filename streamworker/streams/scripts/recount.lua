-- Write down that an entry of ours waits to be run alone (an even delivery count) or is about to run (an odd one).
-- KEYS: the fence's. ARGV: the fence's, the new delivery count. Answers 1, or 0 when the entry is not ours any more.
-- A repetition after a lost reply finds the new count there already.
local pending = redis.call('XPENDING', source, group, id, id, 1, consumer)
if pending[1] and pending[1][4] ~= count and pending[1][4] ~= tonumber(ARGV[6]) then return 0 end
if not pending[1] and not trimmed_away() then return 0 end
redis.call('XCLAIM', source, group, consumer, 0, id, 'RETRYCOUNT', ARGV[6], 'JUSTID')
return 1
