-- Say that a consumer's name is in use by this process, or find out that another one uses it.
-- KEYS: the name's key. ARGV: what tells this process from others, for how many ms the name is claimed (0: it is given up).
-- Answers -1 when the name is ours, else for how many ms it is another's.
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return math.max(0, redis.call('PTTL', KEYS[1])) end
-- Given up, it ends at once: not by DEL, for whoever may delete one of our keys may delete the stream.
redis.call('SET', KEYS[1], ARGV[1], 'PX', math.max(1, tonumber(ARGV[2])))
return -1
