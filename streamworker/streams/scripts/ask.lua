-- Add a request, and see that there is a stream that its reply can be added to: who replies makes none, so none is left behind.
-- KEYS: the stream of the replies. ARGV: the stream that is asked (EVAL would want the right to read it, were it a key), ms for which the
-- first is kept at least, max length of the second ('' for none), the request's fields. Answers the request's id.
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('XADD', KEYS[1], '*', '_', '')
end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end

local command = { 'XADD', ARGV[1] }
if ARGV[3] ~= '' then
  command[3], command[4], command[5] = 'MAXLEN', '~', ARGV[3]
end
command[#command + 1] = '*'
for position = 4, #ARGV do command[#command + 1] = ARGV[position] end
return redis.call(unpack(command))
