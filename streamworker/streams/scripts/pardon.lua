-- Take back the blame for a death that was none: our lease had run out while the entry ran alone here, and we live.
-- KEYS: the stream. ARGV: group, consumer, entry id, the turn that we had. Answers 1 when somebody has taken it over and a death was
-- taken back. The entry stays with whoever has it, for as long as before, and their turn is not touched.
local group, id = ARGV[1], ARGV[3]
local pending = redis.call('XPENDING', KEYS[1], group, id, id, 1)[1]
if not pending or pending[2] == ARGV[2] or turn_of(pending[4]) <= tonumber(ARGV[4]) then return 0 end
-- Claiming an entry that was trimmed away would take it from whoever has it in memory.
if pending[4] % 1000000 < 1000 or #redis.call('XRANGE', KEYS[1], id, id) == 0 then return 0 end
redis.call('XCLAIM', KEYS[1], group, pending[2], 0, id, 'IDLE', pending[3], 'RETRYCOUNT', pending[4] - 1000, 'JUSTID')
return 1
