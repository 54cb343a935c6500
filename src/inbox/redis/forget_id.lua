-- Forgets what a payment was called by, unless it is of its client's present life.
-- KEYS 1 state  2 payment id
local _, s = pcall(function() return load_state(redis.call('GET', KEYS[1])) end)
local text = redis.pcall('GET', KEYS[2])
local life = type(text) == 'string' and string.match(text, '^%d+ %d+ (%d+) ')
if not (life and type(s) == 'table' and s.born == life) then redis.call('UNLINK', KEYS[2]) end
return 'forgotten'
