-- Lets everything up to a payment leave the inbox, for the session that owns it.
-- KEYS 1 state  2 inbox  3 beside
-- ARGV 1 token  2 session  3 epoch  4 seq  5 accepted_at  6 this node
-- Says 'acknowledged acked', the short way with the state behind it; 'passed acked' where this client has dead letters,
-- so that not all of that need be acknowledged; 'replaced' or 'rolled_back'.
local text = redis.call('GET', KEYS[1])

-- Nearly always it is the owner that acknowledges, and nobody waits, and the client has no dead letters (gone equals
-- acked, and there are no tombs): then the state and one entry tell all there is to know. This costs Redis half of what
-- the long way does.
local head, last, acked, tail, epoch, token = string.match(text or '',
  '^(2 (%d+) %d+ %d+) (%d+) %3 %d+ 0 %d+ (0 %d+ (%d+) %d+ (%S+) %S+/%x+)$')
if epoch == ARGV[3] and token == ARGV[1] then
  local count = ARGV[4] - acked
  if count > 0 and redis.call('LLEN', KEYS[2]) == last - acked then
    local entry = redis.call('LINDEX', KEYS[2], count - 1)
    local seq, at, bytes = string.match(entry or '', '^(%d+) (%d+) %S+ (%d+) ')
    if seq == ARGV[4] and at == ARGV[5] then
      if seq == last then redis.call('DEL', KEYS[2]) else redis.call('LTRIM', KEYS[2], count, -1) end
      text = head .. ' ' .. seq .. ' ' .. seq .. ' ' .. bytes .. ' 0 ' .. at .. ' ' .. tail
      redis.call('SET', KEYS[1], text)
      return 'acknowledged ' .. seq .. ' ' .. text
    end
  end
end

local s = load_state(text)
local seq = tonumber(ARGV[4])
local no = fence(s, KEYS[1], KEYS[2], ARGV[1], tonumber(ARGV[2]), ARGV[3], seq, ARGV[5])
if no then return no end
acked = tonumber(s.acked)
local plain = s.tombs == '0' and s.gone == s.acked
if seq <= acked then return (plain and 'acknowledged ' or 'passed ') .. s.acked end
check_length(s, KEYS[2])
local _, bytes = place(s, KEYS[2], seq)
local count = seq - acked
if not plain then
  -- Dead letters' places are passed over; their bytes are held elsewhere.
  local sum, tombs = 0, 0
  for from = 0, count - 1, 100 do
    for _, entry in ipairs(redis.call('LRANGE', KEYS[2], from, math.min(from + 99, count - 1))) do
      if is_tomb(entry) then tombs = tombs + 1 else sum = sum + parcel_bytes(entry) end
    end
  end
  bytes, s.tombs = whole(tonumber(s.bytes_gone) + sum), whole(tonumber(s.tombs) - tombs)
  s.gone = whole(tonumber(s.gone) + count - tombs)
else
  s.gone = whole(seq)
end
-- Who waits for one of these; read before anything is written.
local waiting, fields = {}, {}
if s.waits ~= '0' then
  for from = acked + 1, seq, 200 do
    local names = {}
    for n = from, math.min(from + 199, seq) do names[#names + 1] = 'wait:' .. whole(n) end
    for i, nodes in ipairs(redis.call('HMGET', KEYS[3], unpack(names))) do
      if nodes then
        fields[#fields + 1] = names[i]
        waiting[#waiting + 1] = { string.sub(names[i], 6), nodes }
      end
    end
  end
end
redis.call('LTRIM', KEYS[2], whole(count), -1)
s.acked, s.acked_at, s.bytes_gone = whole(seq), ARGV[5], bytes
drop_tombs(s, KEYS[2])
for _, field in ipairs(fields) do redis.call('HDEL', KEYS[3], field) end
s.waits = whole(math.max(tonumber(s.waits) - #fields, 0))
save_state(KEYS[1], s)
-- Whoever waits on another node hears from here; this node knows.
for _, wait in ipairs(waiting) do
  for node in string.gmatch(wait[2], '%S+') do
    if node ~= ARGV[6] then
      publish(channel_prefix .. node, 'receipt/' .. string.match(KEYS[1], '{(.*)}') .. '/' .. wait[1] .. ' ' .. s.acked)
    end
  end
end
return (plain and 'acknowledged ' or 'passed ') .. s.acked
