-- What a delivery count tells, in groups of three digits from the right; in front of every script that reads or writes one.
-- The turn: odd when the entry may be running, even when it waits to be run alone. It grows with every owner and every change, so it
-- serves as fencing token, and nobody's old one comes again. Then how many workers died while it ran alone, then how often it ran alone
-- for so long that others had to start beside it, and before all that, how many attempts have failed in its place, where its key's order
-- keeps it there. A turn of 0 is that of a new entry which its worker has put down: it ended, and could neither settle it nor give it back.
local FAILURE = 1000000000
local function turn_of(count) return count % 1000 end

-- What it becomes when its owner is taken for dead. Whoever waited is not blamed, and neither is whoever ran in company (turn 1).
local function after_a_death(count)
  local turn = turn_of(count)
  local rest = count - turn
  if turn == 0 then return rest + 1 end
  if turn % 2 == 1 and turn > 1 and rest % 1000000 < 999000 then rest = rest + 1000 end
  if turn > 900 then return rest + 2 end
  return rest + turn + 2 - turn % 2
end
