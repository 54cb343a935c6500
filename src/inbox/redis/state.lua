-- The state of one client: how it is written, and who may speak for it. Goes before every script
-- but accept.lua, which is the hot one and takes the line apart itself.
--
-- 3 acked acked_at bytes_acked gone bytes_gone tombs waits born epoch session token owner
--   3                 the version of this format
--   acked, acked_at   seq and accepted_at of the newest payment that left the inbox
--   bytes_acked       of all parcels up to that one
--   gone, bytes_gone  how many payments count no more: acknowledged, or dead letters that were purged or put back;
--                     and the bytes of their parcels. So last - gone wait or are held as dead letters
--   tombs             dead letters' places between acked and last
--   waits             how many `wait:<seq>` fields stand in the hash beside
--   born, epoch       when this client was first seen; when its numbering began (Unix ms)
--   session, token    the newest claim: its number, and its proof ('-' if the store had lost what it saw)
--   owner             node/boot that holds it, or '-' if it was released
-- The newest payment of all (last, last_at, and bytes_in of all parcels up to it) is the inbox's last, and where that is
-- empty the one acked names: so accepting appends to the inbox, and leaves the state alone. See find_newest().
local function load_state(text)
  if not text then return nil end
  local s = {}
  s.acked, s.acked_at, s.bytes_acked, s.gone, s.bytes_gone, s.tombs, s.waits, s.born, s.epoch, s.session, s.token,
    s.owner = string.match(text,
    '^3 (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%S+) (%S+)$')
  if not s.owner then error('the state of a client is not readable') end
  return s
end

-- Numbers from a calculation go through whole(): Lua would print 1e+14.
local function whole(number) return string.format('%.0f', number) end

local function save_state(key, s)
  redis.call('SET', key, table.concat({ '3', s.acked, s.acked_at, s.bytes_acked, s.gone, s.bytes_gone, s.tombs,
    s.waits, s.born, s.epoch, s.session, s.token, s.owner }, ' '))
end

-- A message is only a hint: that it cannot be sent must not stop a script half-way.
local function publish(channel, message) redis.pcall('PUBLISH', channel, message) end

local function now_ms()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end

-- Reads which payment is the newest. Where the list is not as long as that says, or shorter than it has places of dead
-- letters, this client is stopped, loudly. One that was emptied, or cut at its end, looks like a store that lost its
-- writes.
local function find_newest(s, inbox)
  local count, entry = redis.call('LLEN', inbox), redis.call('LINDEX', inbox, '-1')
  s.last, s.last_at, s.bytes_in = s.acked, s.acked_at, s.bytes_acked
  if entry then s.last, s.last_at, s.bytes_in = string.match(entry, '^(%d+) (%d+) %S+ (%d+) ') end
  if not s.last then error('an inbox holds what is no payment') end
  if count ~= tonumber(s.last) - tonumber(s.acked) or count < tonumber(s.tombs) then
    error('an inbox holds another number of payments than its state says')
  end
end

-- Whether a place is a dead letter's: `seq accepted_at 0 bytes -`. No parcel ends so.
local function is_tomb(entry) return string.find(entry, '^%d+ %d+ 0 %d+ %-$') ~= nil end

local function parcel_bytes(entry)
  local prefix = string.match(entry, '^%d+ %d+ %S+ %d+ ')
  if not prefix then error('an inbox holds what is no payment') end
  return #entry - #prefix
end

-- Lets the places of dead letters go that have come to stand at the head: so the head is always a payment.
local function drop_tombs(s, inbox)
  while s.tombs ~= '0' do
    local heads, count = redis.call('LRANGE', inbox, 0, 99), 0
    while heads[count + 1] and is_tomb(heads[count + 1]) do count = count + 1 end
    if count == 0 then return end
    redis.call('LTRIM', inbox, whole(count), -1)
    s.acked_at, s.bytes_acked = string.match(heads[count], '^%d+ (%d+) %S+ (%d+) ')
    s.acked, s.tombs = whole(tonumber(s.acked) + count), whole(math.max(tonumber(s.tombs) - count, 0))
  end
end

-- accepted_at of a payment behind acked, and the bytes up to it; nil where the inbox does not reach so far.
local function place(s, inbox, seq)
  local entry = redis.call('LINDEX', inbox, whole(seq - tonumber(s.acked) - 1))
  if not entry then return nil end
  local n, at, bytes = string.match(entry, '^(%d+) (%d+) %S+ (%d+) ')
  if tonumber(n) ~= seq then error('an inbox holds a payment in another place') end
  return at, bytes
end

-- Whether the store still knows a place that a session saw.
local function knows(s, inbox, seq, at)
  local acked = tonumber(s.acked)
  if seq == acked then return s.acked_at == at end
  return seq < acked or place(s, inbox, seq) == at
end

-- nil where a session owns the inbox and the store knows what it saw. Else why not: 'replaced' by
-- a newer one, or 'rolled_back': the store came back without its last writes, and everyone must
-- claim anew under a higher epoch, for numbers may be given again to other payments. A session that
-- was released is over like a replaced one: what it still says may come late. A script that must not write
-- (`may_write`) says the same, and leaves the epoch to one that may.
local function fence(s, state_key, inbox, token, session, epoch, seq, at)
  if not s then return 'rolled_back' end
  if s.token == token then
    if s.owner == '-' then return 'replaced' end
    if s.epoch == epoch and knows(s, inbox, seq, at) then return nil end
  elseif tonumber(s.session) > session then
    return 'replaced'
  elseif tonumber(s.epoch) > tonumber(epoch) then
    return 'rolled_back'
  end
  if not may_write then return 'rolled_back' end
  s.epoch = whole(math.max(tonumber(s.epoch) + 1, tonumber(epoch) + 1, now_ms()))
  s.token, s.owner = '-', '-'
  save_state(state_key, s)
  return 'rolled_back'
end
