-- What became of a payment.
-- KEYS 1 state  2 inbox  [3 payment id]    ARGV 1 seq, where there is no payment id
-- Says {'none'}, or {'found', seq, status, entry if it is still held, else ''}.
local s = load_state(redis.call('GET', KEYS[1]))
local seq = ARGV[1]
if KEYS[3] then
  local life
  seq, life = string.match(redis.call('GET', KEYS[3]) or '', '^(%d+) %d+ (%d+) ')
  if not s or life ~= s.born then seq = nil end
end
local n = tonumber(seq)
if not s or not n or n < 1 or n > tonumber(s.last) then return { 'none' } end
if n <= tonumber(s.acked) then return { 'found', seq, 'acknowledged', '' } end
return { 'found', seq, 'accepted', redis.call('LINDEX', KEYS[2], whole(n - tonumber(s.acked) - 1)) or '' }
