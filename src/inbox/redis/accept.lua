-- Puts a payment into its client's inbox, once.
-- KEYS 1 state  2 inbox  3 beside  [4 payment id]
-- ARGV 1 now (ms, Redis' clock)  2 parcel  3 most payments  4 client  5 this node/boot  6 channel prefix
--      7 node that waits for the receipt, or ''  8 most bytes of parcels  [9 fingerprint  10 dedup window, ms]
-- Says 'accepted seq at previous_at owner bytes', 'duplicate seq at status owner', 'full' or 'reused'.
local now, parcel = ARGV[1], ARGV[2]
local text = redis.call('GET', KEYS[1])
local born, epoch, last, last_at, acked, acked_at, tombs, bytes_in, bytes_out, waits, session, token, owner
if text then
  born, epoch, last, last_at, acked, acked_at, tombs, bytes_in, bytes_out, waits, session, token, owner =
    string.match(text, '^1 (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%S+) (%S+)$')
  if not owner then error('the state of a client is not readable') end
else
  born, epoch, last, last_at, acked, acked_at, tombs = now, now, '0', '0', '0', '0', '0'
  bytes_in, bytes_out, waits, session, token, owner = '0', '0', '0', '0', '-', '-'
end
local n = tonumber(last)

-- Has somebody on `node` hear of the end of a payment. Says how many fields there are then.
local function wait_for(seq, node)
  local field = 'wait:' .. seq
  local nodes = redis.call('HGET', KEYS[3], field)
  if not nodes then
    redis.call('HSET', KEYS[3], field, node)
    return string.format('%.0f', tonumber(waits) + 1)
  end
  if not string.find(' ' .. nodes .. ' ', ' ' .. node .. ' ', 1, true) then
    redis.call('HSET', KEYS[3], field, nodes .. ' ' .. node)
  end
  return waits
end

local function line()
  return table.concat({ '1', born, epoch, last, last_at, acked, acked_at, tombs, bytes_in, bytes_out, waits,
    session, token, owner }, ' ')
end

if KEYS[4] then
  local known = redis.call('GET', KEYS[4])
  if known then
    local seq, at, life, print = string.match(known, '^(%d+) (%d+) (%d+) (%x+)$')
    -- One of an earlier life of this client, or of writes that the store lost, counts no more.
    if life == born and tonumber(seq) <= n then
      if print ~= ARGV[9] then return 'reused' end
      local status = tonumber(seq) <= tonumber(acked) and 'acknowledged' or 'accepted'
      if status == 'accepted' and ARGV[7] ~= '' then
        waits = wait_for(seq, ARGV[7])
        redis.call('SET', KEYS[1], line())
      end
      return 'duplicate ' .. seq .. ' ' .. at .. ' ' .. status .. ' ' .. owner
    end
  end
end
if n - tonumber(acked) - tonumber(tombs) >= tonumber(ARGV[3])
  or tonumber(bytes_in) - tonumber(bytes_out) + #parcel > tonumber(ARGV[8]) then return 'full' end

local previous_at = last_at
last = string.format('%.0f', n + 1)
if tonumber(now) > tonumber(last_at) then last_at = now end
bytes_in = string.format('%.0f', tonumber(bytes_in) + #parcel)
local entry = last .. ' ' .. last_at .. ' 0 ' .. bytes_in .. ' ' .. parcel
-- What can fail for a wrong type comes first: then nothing has changed.
if ARGV[7] ~= '' then
  redis.call('LLEN', KEYS[2])
  waits = wait_for(last, ARGV[7])
end
redis.call('RPUSH', KEYS[2], entry)
redis.call('SET', KEYS[1], line())
if KEYS[4] then
  redis.call('SET', KEYS[4], last .. ' ' .. last_at .. ' ' .. born .. ' ' .. ARGV[9], 'PX', ARGV[10])
end
if owner ~= '-' and owner ~= ARGV[5] then
  -- Only a hint: that it cannot be sent must not make a stored payment look refused.
  redis.pcall('PUBLISH', ARGV[6] .. string.match(owner, '^[^/]+'),
    'doorbell ' .. ARGV[4] .. ' ' .. previous_at .. ' ' .. entry)
end
return 'accepted ' .. last .. ' ' .. last_at .. ' ' .. previous_at .. ' ' .. owner .. ' ' .. bytes_in
