-- Puts a payment into its client's inbox, once.
-- KEYS 1 state  2 inbox  3 beside  [4 payment id]
-- ARGV 1 now (ms, Redis' clock)  2 parcel  3 most payments  4 client  5 this node/boot  6 channel prefix
--      7 node that waits for the receipt, or ''  8 most bytes of parcels  [9 fingerprint  10 dedup window, ms]
-- Says 'accepted seq at previous_at owner', 'duplicate seq at status owner', 'full' or 'reused'.
local now, parcel = ARGV[1], ARGV[2]
local text = redis.call('GET', KEYS[1]) or '2 0 0 0 0 0 0 0 0 ' .. now .. ' ' .. now .. ' 0 - -'
local last, last_at, bytes_in, rest, acked, tombs, bytes_out, owner =
  string.match(text, '^2 (%d+) (%d+) (%d+) ((%d+) (%d+) (%d+) %d+ %d+ %d+ %d+ %d+ %S+ (%S+))$')
if not owner then error('the state of a client is not readable') end

-- Has somebody on a node hear of the end of a payment.
local function wait_for(seq, node)
  local field = 'wait:' .. seq
  local nodes = redis.call('HGET', KEYS[3], field)
  if not nodes then
    redis.call('HSET', KEYS[3], field, node)
    local before, waits, after = string.match(rest, '^(%d+ %d+ %d+ %d+) (%d+) (.*)$')
    rest = string.format('%s %.0f %s', before, waits + 1, after)
  elseif not string.find(' ' .. nodes .. ' ', ' ' .. node .. ' ', 1, true) then
    redis.call('HSET', KEYS[3], field, nodes .. ' ' .. node)
  end
end

local function save()
  redis.call('SET', KEYS[1], '2 ' .. last .. ' ' .. last_at .. ' ' .. bytes_in .. ' ' .. rest)
end

local born = KEYS[4] and string.match(rest, '^%d+ %d+ %d+ %d+ %d+ (%d+)')
if born then
  local seq, at, life, print = string.match(redis.call('GET', KEYS[4]) or '', '^(%d+) (%d+) (%d+) (%x+)$')
  -- One of an earlier life of this client, or of writes that the store lost, counts no more.
  if life == born and tonumber(seq) <= tonumber(last) then
    if print ~= ARGV[9] then return 'reused' end
    local status = tonumber(seq) <= tonumber(acked) and 'acknowledged' or 'accepted'
    if status == 'accepted' and ARGV[7] ~= '' then
      wait_for(seq, ARGV[7])
      save()
    end
    return 'duplicate ' .. seq .. ' ' .. at .. ' ' .. status .. ' ' .. owner
  end
end
if last - acked - tombs >= tonumber(ARGV[3]) or bytes_in - bytes_out + #parcel > tonumber(ARGV[8]) then
  return 'full'
end

local previous_at = last_at
if tonumber(now) > tonumber(last_at) then last_at = now end
last, bytes_in = string.format('%.0f', last + 1), string.format('%.0f', bytes_in + #parcel)
local entry = last .. ' ' .. last_at .. ' 0 ' .. bytes_in .. ' ' .. parcel
-- What can fail for a wrong type comes first: then nothing has changed.
if ARGV[7] ~= '' then
  redis.call('LLEN', KEYS[2])
  wait_for(last, ARGV[7])
end
redis.call('RPUSH', KEYS[2], entry)
save()
if born then
  redis.call('SET', KEYS[4], last .. ' ' .. last_at .. ' ' .. born .. ' ' .. ARGV[9], 'PX', ARGV[10])
end
if owner ~= '-' and owner ~= ARGV[5] then
  -- Only a hint: that it cannot be sent must not make a stored payment look refused.
  redis.pcall('PUBLISH', ARGV[6] .. string.match(owner, '^[^/]+'),
    'doorbell ' .. ARGV[4] .. ' ' .. previous_at .. ' ' .. entry)
end
return 'accepted ' .. last .. ' ' .. last_at .. ' ' .. previous_at .. ' ' .. owner
