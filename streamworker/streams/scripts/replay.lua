-- Give a dead letter back to its group, and to no other, through the group's retry stream.
-- KEYS: the dead-letter stream, the retry stream. ARGV: dead letter's id, envelope. Answers 1, or 0 when it was not there any more.
if #redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1]) == 0 then return 0 end
redis.call('XADD', KEYS[2], '*', 'delivery', ARGV[2])
redis.call('XDEL', KEYS[1], ARGV[1])
return 1
