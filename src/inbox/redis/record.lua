-- What there is to say of a client, all of it of one moment.
-- KEYS 1 state  2 inbox  3 beside
-- Says {'none'}, or {'record', state, how many the inbox holds, accepted_at of the oldest or '', since, address}.
local state = redis.call('GET', KEYS[1])
if not state then return { 'none' } end
local oldest = string.match(redis.call('LINDEX', KEYS[2], '0') or '', '^%d+ (%d+)') or ''
local since, address = unpack(redis.call('HMGET', KEYS[3], 'since', 'address'))
return { 'record', state, redis.call('LLEN', KEYS[2]), oldest, since or '', address or '' }
