-- Lets everything up to a payment leave its client's inbox, for the session that owns it; for each of many in their order.
-- KEYS state, inbox and beside of each
-- ARGV 1 this node; then five of each: token, session, epoch, seq, accepted_at
-- Says of each 'acknowledged acked', the short way with the state behind it; 'passed acked' where this client has dead
-- letters, so that not all of that need be acknowledged; 'replaced', 'rolled_back', or 'error why'.
local this_node = ARGV[1]

-- Nearly always it is the owner that acknowledges, and nobody waits, and the client has no dead letters (gone equals
-- acked, also in bytes, and there are no tombs): then the state and one entry tell all there is to know. This costs
-- Redis half of what the long way does. nil where it is not so, and nothing has changed.
local function short_way(state_key, inbox, text, token, epoch, seq, at)
  local acked, _, tail, epoch_now, token_now = string.match(text or '',
    '^3 (%d+) %d+ (%d+) %1 %2( 0 0 %d+ (%d+) %d+ (%S+) %S+/%x+)$')
  if epoch_now ~= epoch or token_now ~= token then return nil end
  local count = seq - acked
  if count <= 0 then return nil end
  -- One alone is taken out to be looked at: a command less.
  local entry
  if count == 1 then entry = redis.call('LPOP', inbox) else entry = redis.call('LINDEX', inbox, count - 1) end
  local n, accepted_at, bytes = string.match(entry or '', '^(%d+) (%d+) %S+ (%d+) ')
  if n ~= seq or accepted_at ~= at then
    if count == 1 and entry then redis.call('LPUSH', inbox, entry) end
    return nil
  end
  if count > 1 then redis.call('LTRIM', inbox, count, -1) end
  text = '3 ' .. seq .. ' ' .. at .. ' ' .. bytes .. ' ' .. seq .. ' ' .. bytes .. tail
  redis.call('SET', state_key, text)
  return 'acknowledged ' .. seq .. ' ' .. text
end

local function long_way(state_key, inbox, beside, text, token, session, epoch, seq, at)
  local s = load_state(text)
  local no = fence(s, state_key, inbox, token, session, epoch, seq, at)
  if no then return no end
  local acked = tonumber(s.acked)
  local plain = s.tombs == '0' and s.gone == s.acked
  if seq <= acked then return (plain and 'acknowledged ' or 'passed ') .. s.acked end
  find_newest(s, inbox)
  local _, bytes = place(s, inbox, seq)
  local count = seq - acked
  s.bytes_acked = bytes
  if not plain then
    -- Dead letters' places are passed over; their bytes are held elsewhere.
    local sum, tombs = 0, 0
    for from = 0, count - 1, 100 do
      for _, entry in ipairs(redis.call('LRANGE', inbox, from, math.min(from + 99, count - 1))) do
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
      for i, nodes in ipairs(redis.call('HMGET', beside, unpack(names))) do
        if nodes then
          fields[#fields + 1] = names[i]
          waiting[#waiting + 1] = { string.sub(names[i], 6), nodes }
        end
      end
    end
  end
  redis.call('LTRIM', inbox, whole(count), -1)
  s.acked, s.acked_at, s.bytes_gone = whole(seq), at, bytes
  drop_tombs(s, inbox)
  for _, field in ipairs(fields) do redis.call('HDEL', beside, field) end
  s.waits = whole(math.max(tonumber(s.waits) - #fields, 0))
  save_state(state_key, s)
  -- Whoever waits on another node hears from here; this node knows.
  for _, wait in ipairs(waiting) do
    local topic = 'receipt/' .. string.match(state_key, '{(.*)}') .. '/' .. wait[1]
    for node in string.gmatch(wait[2], '%S+') do
      if node ~= this_node then publish(channel_prefix .. node, topic .. ' ' .. s.acked) end
    end
  end
  return (plain and 'acknowledged ' or 'passed ') .. s.acked
end

local function acknowledge(state_key, inbox, beside, token, session, epoch, seq, at)
  local text = redis.call('GET', state_key)
  return short_way(state_key, inbox, text, token, epoch, seq, at)
    or long_way(state_key, inbox, beside, text, token, tonumber(session), epoch, tonumber(seq), at)
end

local replies = {}
for i = 1, #KEYS / 3 do
  replies[i] = alone(pcall(acknowledge, KEYS[3 * i - 2], KEYS[3 * i - 1], KEYS[3 * i], unpack(ARGV, 5 * i - 3, 5 * i + 1)))
end
return replies
