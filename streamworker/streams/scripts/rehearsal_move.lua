-- Set the time of the test, and let every key that ends by itself end by so much sooner.
-- KEYS: the time of the test. ARGV: the new time in ms, by how many ms that is later. The database is the test's alone.
redis.call('SET', KEYS[1], ARGV[1])
for _, key in ipairs(redis.call('KEYS', '*')) do
  local left = redis.call('PTTL', key)
  if left > 0 then redis.call('PEXPIRE', key, math.max(0, left - ARGV[2])) end
end
return 1
