-- Give an entry back: whoever reads next gets it at once, with its attempt unchanged.
-- KEYS: the stream it is pending in, the retry stream.
-- ARGV: group, consumer, entry id, delivery count, 1 to remove the entry, envelope.
-- Answers 1, or 0 when the entry is not ours any more.
local source, group, consumer, id, count = KEYS[1], ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local pending = redis.call('XPENDING', source, group, id, id, 1, consumer)
if not (pending[1] and pending[1][4] == count) then return 0 end

redis.call('XADD', KEYS[2], '*', 'delivery', ARGV[6])
redis.call('XACK', source, group, id)
if ARGV[5] == '1' then redis.call('XDEL', source, id) end
return 1
