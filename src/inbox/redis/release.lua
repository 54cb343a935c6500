-- Ends a session, if it still is the owner.
-- KEYS 1 state  2 beside    ARGV 1 token
local s = load_state(redis.call('GET', KEYS[1]))
if s and s.token == ARGV[1] then
  -- The token stays: so this session can be told from one that the store has lost.
  s.owner = '-'
  redis.call('HDEL', KEYS[2], 'since', 'address')
  save_state(KEYS[1], s)
end
return 'released'
