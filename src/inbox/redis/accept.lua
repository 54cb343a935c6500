-- Puts a payment into its client's inbox, once.
-- KEYS 1 state  2 inbox  3 beside  [4 payment id]
-- ARGV 1 now (ms, Redis' clock)  2 parcel  3 this node/boot  4 node that waits for the receipt, or ''
--      [5 fingerprint  6 dedup window, ms  [7 expires in, ms]], 5 and 6 empty where only 7 is given
-- Before it stand most_payments, most_bytes (of parcels) and channel_prefix: an argument costs more than a constant.
-- Says 'accepted seq at previous_at owner', 'duplicate seq at status owner' (the status as in
-- look_up.lua), 'full' or 'reused'.
local now, parcel = ARGV[1], ARGV[2]
local text = redis.call('GET', KEYS[1]) or '2 0 0 0 0 0 0 0 0 0 ' .. now .. ' ' .. now .. ' 0 - -'
local last, last_at, bytes_in, rest_at, gone, bytes_gone, owner =
  string.match(text, '^2 (%d+) (%d+) (%d+) ()%d+ (%d+) (%d+) %d+ %d+ %d+ %d+ %d+ %d+ %S+ (%S+)$')
if not owner then error('the state of a client is not readable') end
-- Acceptance changes nothing of it but how many wait.
local rest = string.sub(text, rest_at)

-- Has somebody on a node hear of the end of a payment.
local function wait_for(seq, node)
  local field = 'wait:' .. seq
  local nodes = redis.call('HGET', KEYS[3], field)
  if not nodes then
    redis.call('HSET', KEYS[3], field, node)
    local before, waits, after = string.match(rest, '^(%d+ %d+ %d+ %d+ %d+) (%d+) (.*)$')
    rest = string.format('%s %.0f %s', before, waits + 1, after)
  elseif not string.find(' ' .. nodes .. ' ', ' ' .. node .. ' ', 1, true) then
    redis.call('HSET', KEYS[3], field, nodes .. ' ' .. node)
  end
end

local born = KEYS[4] and string.match(rest, '^%d+ %d+ %d+ %d+ %d+ %d+ (%d+)')
if born then
  local seq, at, life, print = string.match(redis.call('GET', KEYS[4]) or '', '^(%d+) (%d+) (%d+) (%x+)$')
  -- One of an earlier life of this client, or of writes that the store lost, counts no more.
  if life == born and tonumber(seq) <= tonumber(last) then
    if print ~= ARGV[5] then return 'reused' end
    local acked = string.match(rest, '^%d+')
    local status = tonumber(seq) <= tonumber(acked) and 'acknowledged' or 'accepted'
    -- A repeat is rare: only it pays for the key's name, which has the same hash tag, and for the look into it.
    local letter = redis.call('HGET', string.sub(KEYS[1], 1, -6) .. 'dead', seq)
    if letter then
      status = string.match(letter, '^(%a+)')
      if status == 'retried' then status = status .. '/' .. string.match(letter, ' (%d+)$') end
    elseif status == 'accepted' then
      local entry = redis.call('LINDEX', KEYS[2], string.format('%.0f', seq - acked - 1))
      local expires_at = tonumber(string.match(entry or '', '^%d+ %d+ (%d+)') or 0)
      if expires_at > 0 and expires_at <= tonumber(now) then status = 'due' end
    end
    if (status == 'accepted' or status == 'due') and ARGV[4] ~= '' then
      wait_for(seq, ARGV[4])
      redis.call('SET', KEYS[1], string.sub(text, 1, rest_at - 1) .. rest)
    end
    return 'duplicate ' .. seq .. ' ' .. at .. ' ' .. status .. ' ' .. owner
  end
end
if last - gone >= most_payments or bytes_in - bytes_gone + #parcel > most_bytes then return 'full' end

local at = tonumber(now) > tonumber(last_at) and now or last_at
local seq_at = string.format('%.0f %s', last + 1, at)
bytes_in = string.format('%.0f', bytes_in + #parcel)
local expires_at = ARGV[7] and string.format('%.0f', at + ARGV[7]) or '0'
local entry = seq_at .. ' ' .. expires_at .. ' ' .. bytes_in .. ' ' .. parcel
-- What can fail for a wrong type comes first: then nothing has changed.
if ARGV[4] ~= '' then
  redis.call('LLEN', KEYS[2])
  wait_for(string.format('%.0f', last + 1), ARGV[4])
end
redis.call('RPUSH', KEYS[2], entry)
redis.call('SET', KEYS[1], '2 ' .. seq_at .. ' ' .. bytes_in .. ' ' .. rest)
if born then
  redis.call('SET', KEYS[4], seq_at .. ' ' .. born .. ' ' .. ARGV[5], 'PX', ARGV[6])
end
if owner ~= ARGV[3] and owner ~= '-' then
  local client, awaited = string.match(KEYS[1], '{(.*)}'), ARGV[4] ~= '' and '1' or '0'
  -- Only a hint: that it cannot be sent must not make a stored payment look refused.
  redis.pcall('PUBLISH', channel_prefix .. string.match(owner, '^[^/]+'),
    table.concat({ 'doorbell', client, last_at, awaited, entry }, ' '))
end
return 'accepted ' .. seq_at .. ' ' .. last_at .. ' ' .. owner
