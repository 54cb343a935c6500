-- Forgets a client. What it was called by (payment ids) is swept up after this.
-- KEYS 1 state  2 inbox  3 beside  4 dead letters    ARGV 1 '1' to discard what is pending
-- Says 'unknown', 'pending n' or 'retired'.
local s = load_state(redis.call('GET', KEYS[1]))
if not s then return 'unknown' end
local pending = tonumber(s.last) - tonumber(s.acked) - tonumber(s.tombs)
if pending > 0 and ARGV[1] ~= '1' then return 'pending ' .. whole(pending) end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
return 'retired'
