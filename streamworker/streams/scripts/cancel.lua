-- Take a scheduled entry away before it is due; its dedupe id is free again.
-- KEYS: the sorted set of due times, the hash of entries. ARGV: the handle. Answers 1, or 0 when it does not wait (any more).
local entry = redis.call('HGET', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[1], ARGV[1])
if not entry then return 0 end
local fine, head = pcall(cjson.decode, string.match(entry, '^[^\n]*'))
if fine and type(head) == 'table' and type(head['once']) == 'string' and redis.call('GET', head['once']) == ARGV[1] then
  redis.call('PEXPIRE', head['once'], 0) -- gone, without the right to delete any key
end
return redis.call('HDEL', KEYS[2], ARGV[1])
