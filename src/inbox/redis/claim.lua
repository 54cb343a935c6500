-- Makes a connection the owner of an inbox.
-- KEYS 1 state  2 inbox  3 beside
-- ARGV 1 token  2 this node/boot  3 client  4 address  5 deadline (ms, Redis' clock)
--      6 least time between two changes of hands, ms
-- Says 'claimed session acked acked_at last last_at epoch pending', 'soon ms' or 'late'.
local s = load_state(redis.call('GET', KEYS[1]))
local since = redis.call('HGET', KEYS[3], 'since')
local now = now_ms()
-- A claim that timed out must not run later: its connection is gone, and a newer one may be here.
if now > tonumber(ARGV[5]) then return 'late' end
if not s then
  local n = whole(now)
  s = { born = n, epoch = n, acked = '0', acked_at = '0', bytes_acked = '0', gone = '0', bytes_gone = '0',
    tombs = '0', waits = '0', session = '0' }
end
find_newest(s, KEYS[2])
if since and s.owner and s.owner ~= '-' then
  local least = tonumber(ARGV[6])
  local wait = tonumber(since) + least - now
  -- No longer than that, though Redis' clock may have been set back.
  if wait > 0 and wait <= least then return 'soon ' .. whole(wait) end
end
local before = s.owner
s.session = whole(tonumber(s.session) + 1)
s.token, s.owner = ARGV[1], ARGV[2]
redis.call('HSET', KEYS[3], 'since', whole(now), 'address', ARGV[4])
-- A session that was not released may have sent what it could not have written down.
if before and before ~= '-' then redis.call('HSET', KEYS[3], 'doubt', s.last) end
save_state(KEYS[1], s)
if before and before ~= '-' and before ~= ARGV[2] then
  publish(channel_prefix .. string.match(before, '^[^/]+'), 'takeover ' .. ARGV[3] .. ' ' .. s.session)
end
local pending = whole(tonumber(s.last) - tonumber(s.acked) - tonumber(s.tombs))
return table.concat({ 'claimed', s.session, s.acked, s.acked_at, s.last, s.last_at, s.epoch, pending }, ' ')
