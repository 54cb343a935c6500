-- Writes down that a session sent a payment which can expire: `expires_at` becomes `expires_at/session`.
-- KEYS 1 state  2 inbox    ARGV 1 session  2 epoch  3 seq  4 accepted_at
-- Not only the owner's word counts: what an older session sent was sent.
local s = load_state(redis.call('GET', KEYS[1]))
local index = s and s.epoch == ARGV[2] and tonumber(ARGV[3]) - tonumber(s.acked) - 1 or -1
if index < 0 then return 'noted' end
local entry = redis.call('LINDEX', KEYS[2], whole(index))
local n, at, expires_at, by, rest = string.match(entry or '', '^(%d+) (%d+) (%d+)/?(%d*) (.*)$')
if n == ARGV[3] and at == ARGV[4] and expires_at ~= '0' and tonumber(by == '' and 0 or by) < tonumber(ARGV[1]) then
  redis.call('LSET', KEYS[2], whole(index), n .. ' ' .. at .. ' ' .. expires_at .. '/' .. ARGV[1] .. ' ' .. rest)
end
return 'noted'
