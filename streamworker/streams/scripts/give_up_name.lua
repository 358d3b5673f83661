-- Let others have a consumer's name at once: an empty claim is nobody's, while a claim that is gone may have been deleted.
-- KEYS: the name's key. ARGV: what tells this process from others, for how many ms to say so.
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], '', 'PX', ARGV[2]) end
return 0
