-- Write down that an entry of ours waits to be run alone (an even turn) or is about to run (an odd one), or that an attempt has failed
-- and it waits in its place for the next one.
-- KEYS: the fence's. ARGV: the fence's, the new turn, 1 when it has outstayed its time alone, how many attempts have failed in its place.
-- Answers 1, or 0 when the entry is not ours any more. A repetition after a lost reply finds the new turn there already.
local wanted = tonumber(ARGV[6])
local pending = redis.call('XPENDING', source, group, id, id, 1, consumer)[1]
if not pending then return trimmed_away() and 1 or 0 end
local found = turn_of(pending[4])
if found ~= turn and found ~= wanted then return 0 end
local count = pending[4] - found + wanted
if found ~= wanted and ARGV[7] == '1' and count % FAILURE < 999000000 then count = count + 1000000 end
count = count % FAILURE + tonumber(ARGV[8]) * FAILURE
local claimed = redis.call('XCLAIM', source, group, consumer, 0, id, 'RETRYCOUNT', count, 'JUSTID')
if shrinks and not claimed[1] then witness(settled, id) end
return 1
