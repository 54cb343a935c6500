-- What became of a payment.
-- KEYS 1 state  2 inbox  3 dead letters  [4 payment id]    ARGV 1 seq, where there is no payment id
-- Says {'none'}, or {'found', seq, status, entry or dead letter if it is still held, else '', owner, ms until it
-- expires or ''}. The status is accepted, acknowledged, refused, expired, purged, retried/seq; or due: past its time,
-- and no dead letter yet.
local s = load_state(redis.call('GET', KEYS[1]))
local seq, at = ARGV[1], nil
if KEYS[4] then
  local life
  seq, at, life = string.match(redis.call('GET', KEYS[4]) or '', '^(%d+) (%d+) (%d+) ')
  if not s or life ~= s.born then seq = nil end
end
local n = tonumber(seq)
if not s or not n or n < 1 then return { 'none' } end
find_newest(s, KEYS[2])
if n > tonumber(s.last) then return { 'none' } end
local entry = n > tonumber(s.acked) and redis.call('LINDEX', KEYS[2], whole(n - tonumber(s.acked) - 1)) or ''
-- What was called so was lost with the store's last writes, and its place is another's.
if at and entry ~= '' and string.match(entry, '^%d+ (%d+)') ~= at then return { 'none' } end
local letter = redis.call('HGET', KEYS[3], seq)
if letter then return { 'found', seq, letter_status(letter), letter, s.owner, '' } end
if n <= tonumber(s.acked) then return { 'found', seq, 'acknowledged', '', s.owner, '' } end
local expires_at, status, left = string.match(entry, '^%d+ %d+ (%d+)'), 'accepted', ''
if expires_at and expires_at ~= '0' then
  left = tonumber(expires_at) - now_ms()
  if left <= 0 then status = 'due' end
  left = whole(math.max(left, 0))
end
return { 'found', seq, status, entry, s.owner, left }
