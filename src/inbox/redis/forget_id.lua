-- Forgets what a payment was called by, if it is of an earlier life of its client.
-- KEYS 1 state  2 payment id
local s = load_state(redis.call('GET', KEYS[1]))
local life = string.match(redis.call('GET', KEYS[2]) or '', '^%d+ %d+ (%d+) ')
if life and not (s and s.born == life) then redis.call('UNLINK', KEYS[2]) end
return 'forgotten'
