-- Give an entry back: whoever reads next gets it at once, with its attempt unchanged.
-- KEYS: the fence's two, the retry stream. ARGV: the fence's, envelope. Answers 1, or 0 when the entry is not ours any more.
if not ours() then return 0 end

redis.call('XADD', KEYS[3], '*', 'delivery', ARGV[6])
acknowledge()
return 1
