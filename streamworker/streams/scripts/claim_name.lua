-- Say that a consumer's name is in use by this process, or find out that another one uses it.
-- KEYS: the name's key. ARGV: what tells this process from others, for how many ms the name is claimed, 1 when a name that nobody
-- claims may be taken, else 0: its owner may live, and only its claim be gone.
-- Answers -1 when the name is ours, -2 when nobody claims it, else for how many ms it is another's.
local owner = redis.call('GET', KEYS[1])
if owner == ARGV[1] and redis.call('PEXPIRE', KEYS[1], ARGV[2]) == 1 then return -1 end -- a full server does this too, but no SET
if owner and owner ~= ARGV[1] and owner ~= '' then return math.max(0, redis.call('PTTL', KEYS[1])) end
if not owner and ARGV[3] == '0' then return -2 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return -1
