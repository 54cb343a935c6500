-- Forgets a client. What it was called by (payment ids) is swept up after this.
-- KEYS 1 state  2 inbox  3 beside  4 dead letters  5 their order  6 their words    ARGV 1 '1' to discard what is pending
-- Says 'unknown', 'pending n' or 'retired'.
-- What cannot be read can at least be discarded.
local readable, s = pcall(function()
  local s = load_state(redis.call('GET', KEYS[1]))
  if s then find_newest(s, KEYS[2]) end
  return s
end)
if readable and not s then return 'unknown' end
if ARGV[1] ~= '1' then
  if not readable then error('what a client has is not readable') end
  local pending = tonumber(s.last) - tonumber(s.acked) - tonumber(s.tombs)
  if pending > 0 then return 'pending ' .. whole(pending) end
end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6])
return 'retired'
