-- Lets everything up to a payment leave the inbox, for the session that owns it.
-- KEYS 1 state  2 inbox  3 beside
-- ARGV 1 token  2 session  3 epoch  4 seq  5 accepted_at  6 client  7 this node  8 channel prefix
-- Says 'acknowledged acked', 'replaced' or 'rolled_back'.
local s = load_state(redis.call('GET', KEYS[1]))
local seq = tonumber(ARGV[4])
local no = fence(s, KEYS[1], KEYS[2], ARGV[1], tonumber(ARGV[2]), ARGV[3], seq, ARGV[5])
if no then return no end
local acked = tonumber(s.acked)
if seq <= acked then return 'acknowledged ' .. s.acked end
check_length(s, KEYS[2])
local _, bytes = place(s, KEYS[2], seq)
local waiting = {}
if s.waits ~= '0' then waiting = redis.call('HGETALL', KEYS[3]) end
redis.call('LTRIM', KEYS[2], whole(seq - acked), -1)
s.acked, s.acked_at, s.bytes_out = whole(seq), ARGV[5], bytes
-- Whoever waits on another node hears from here; this node knows.
for i = 1, #waiting, 2 do
  local n = string.match(waiting[i], '^wait:(%d+)$')
  if n and tonumber(n) <= seq then
    redis.call('HDEL', KEYS[3], waiting[i])
    s.waits = whole(tonumber(s.waits) - 1)
    for node in string.gmatch(waiting[i + 1], '%S+') do
      if node ~= ARGV[7] then
        redis.call('PUBLISH', ARGV[8] .. node, 'receipt/' .. ARGV[6] .. '/' .. n .. ' ' .. s.acked)
      end
    end
  end
end
save_state(KEYS[1], s)
return 'acknowledged ' .. s.acked
