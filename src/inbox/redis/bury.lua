-- Makes a payment a dead letter: refused by its client or by an operator, or expired.
-- KEYS 1 state  2 inbox  3 beside  4 dead letters  5 their order  6 their words
-- ARGV 1 'nack', 'refuse' or 'expire'  2 seq  3 reason  4 dedup window, ms  5 an owner that is known to be dead, or ''
--      6 token  7 session  8 epoch  9 accepted_at: of the session that says it, always for a nack
-- Says 'buried status', 'kept status' (as in look_up.lua) where nothing was changed, 'none', 'replaced', 'rolled_back'.
local how, seq = ARGV[1], tonumber(ARGV[2])
local s = load_state(redis.call('GET', KEYS[1]))
if how == 'nack' then
  local no = fence(s, KEYS[1], KEYS[2], ARGV[6], tonumber(ARGV[7]), ARGV[8], seq, ARGV[9])
  if no then return no end
end
if not s then return 'none' end
find_newest(s, KEYS[2])
if seq < 1 or seq > tonumber(s.last) then return 'none' end
local letter = redis.call('HGET', KEYS[4], ARGV[2])
if letter then return 'kept ' .. letter_status(letter) end
if seq <= tonumber(s.acked) then return 'kept acknowledged' end
place(s, KEYS[2], seq)
local index = whole(seq - tonumber(s.acked) - 1)
local entry, now = redis.call('LINDEX', KEYS[2], index), now_ms()
local n, at, expires_at, sent_by, bytes = string.match(entry, '^(%d+) (%d+) (%d+)/?(%d*) (%d+) ')
if not n or is_tomb(entry) then error('a dead letter is missing') end
local status, maybe = 'refused', '0'
if how == 'expire' then
  status = 'expired'
  -- A session that ended without a release may have sent what it did not write down.
  local doubt = s.owner ~= '-' and s.owner == ARGV[5] or seq <= tonumber(redis.call('HGET', KEYS[3], 'doubt') or 0)
  maybe = (sent_by ~= '' or doubt) and '1' or '0'
  local mine = s.token == ARGV[6]
  local held = s.owner ~= '-' and s.owner ~= ARGV[5]
  -- What was sent in time waits for the end of that connection; and word of what was sent may still be on its way.
  local grace = held and not mine and expiry_grace or 0
  if expires_at == '0' or now < tonumber(expires_at) + grace or (held and not mine and sent_by == s.session) then
    return 'kept accepted'
  end
end
-- Every key that is written is read first: one of a wrong type then fails before anything has changed.
local nodes = redis.call('HGET', KEYS[3], 'wait:' .. n)
redis.call('ZCARD', KEYS[5])
forget_words(KEYS[4], KEYS[6], now, tonumber(ARGV[4]), s.acked)
redis.call('HSET', KEYS[4], n, table.concat({ status, whole(now), maybe, #ARGV[3], ARGV[3], entry }, ' '))
redis.call('ZADD', KEYS[5], n, n)
redis.call('LSET', KEYS[2], index, n .. ' ' .. at .. ' 0 ' .. bytes .. ' -')
s.tombs = whole(tonumber(s.tombs) + 1)
drop_tombs(s, KEYS[2])
if nodes then
  redis.call('HDEL', KEYS[3], 'wait:' .. n)
  s.waits = whole(math.max(tonumber(s.waits) - 1, 0))
end
save_state(KEYS[1], s)
local client = string.match(KEYS[1], '{(.*)}')
for node in string.gmatch(nodes or '', '%S+') do
  publish(channel_prefix .. node, 'receipt/' .. client .. '/' .. n .. ' ' .. status)
end
-- Its own connection knows; another's must not wait behind it.
if how ~= 'nack' and s.owner ~= '-' then
  publish(channel_prefix .. string.match(s.owner, '^[^/]+'), 'dead ' .. client .. ' ' .. n)
end
return 'buried ' .. status
